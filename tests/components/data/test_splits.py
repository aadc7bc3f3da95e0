"""Which records are kept, what their ids are, and which split each belongs to."""

from pathlib import Path

import pytest

from components.data.cifar10 import BATCHES, BatchFile
from components.data.splits import Chunk, choose_split, count_shards, cut_chunks, limit_batches


def make_batches(records: int) -> list[BatchFile]:
    return [BatchFile(Path('folder') / name, records) for name in BATCHES]


def test_the_split_of_an_id_never_changes():
    """Pinned, because a different split would let images seen in training into val."""
    val = [number for number in range(100) if choose_split(f'train_{number:05d}') == 'val']
    assert val == [13, 14, 22, 37, 41, 44, 49, 84]
    assert {choose_split(f'test_{number:05d}') for number in range(100)} == {'test'}


def test_a_tenth_of_the_official_training_images_is_val():
    val = sum(choose_split(f'train_{number:05d}') == 'val' for number in range(50_000))
    assert 4_800 < val < 5_200


def test_ids_count_through_the_training_batches_and_start_again_in_the_test_batch():
    chunks = cut_chunks(make_batches(600))
    assert chunks[:4] == [
        Chunk('folder/data_batch_1.bin', 0, 500, 'train', 0),
        Chunk('folder/data_batch_1.bin', 500, 100, 'train', 500),
        Chunk('folder/data_batch_2.bin', 0, 500, 'train', 600),
        Chunk('folder/data_batch_2.bin', 500, 100, 'train', 1100),
    ]
    assert chunks[-2:] == [
        Chunk('folder/test_batch.bin', 0, 500, 'test', 0),
        Chunk('folder/test_batch.bin', 500, 100, 'test', 500),
    ]


@pytest.mark.parametrize('limit', [60, 61, 119])
def test_a_limit_takes_the_same_share_of_every_batch(limit):
    kept = [batch.records for batch in limit_batches(make_batches(20), limit)]
    assert sum(kept) == limit
    assert max(kept) - min(kept) <= 1


@pytest.mark.parametrize('limit', [None, 120, 121])
def test_no_limit_and_a_large_one_keep_every_record(limit):
    assert limit_batches(make_batches(20), limit) == make_batches(20)


def test_cifar_10_is_written_as_twelve_files():
    assert count_shards(make_batches(10_000)) == {'train': 9, 'val': 1, 'test': 2}
