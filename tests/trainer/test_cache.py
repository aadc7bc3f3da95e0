"""The feature cache: where it goes, and that it returns what was stored."""

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from components.errors import TrainingError
from trainer import cache
from trainer.cache import FeatureCache, fill_cache, make_cache_reader, plan_cache

MB = 1024**2


def plan(wanted='auto', bytes_needed=MB, tmp_path=Path('/'), is_augmented=False, cached_views=0):
    return plan_cache(
        wanted, bytes_needed=bytes_needed, folder=str(tmp_path), is_augmented=is_augmented, cached_views=cached_views
    )


def test_a_small_cache_goes_to_memory_and_a_large_one_to_disk(monkeypatch):
    assert plan().kind == 'memory'
    monkeypatch.setattr(cache, '_MEMORY_BYTES', MB - 1)
    assert plan().kind == 'disk'


def test_without_room_anywhere_auto_turns_the_cache_off_and_says_so(monkeypatch):
    monkeypatch.setattr(cache, '_MEMORY_BYTES', 0)
    decided = plan(bytes_needed=2**60)
    assert decided.kind == 'off'
    assert 'fit neither in memory nor in' in decided.reason


@pytest.mark.parametrize('wanted', ['memory', 'disk'])
def test_a_configured_cache_without_enough_room_is_an_error(wanted):
    with pytest.raises(TrainingError, match=rf'trainer\.cache={wanted} needs .* GB.* and only .* GB are free'):
        plan(wanted, bytes_needed=2**60)


def test_augmentation_turns_the_cache_off_unless_views_are_cached():
    assert plan(is_augmented=True).kind == 'off'
    assert plan(is_augmented=True, cached_views=2).kind == 'memory'
    assert plan('off').kind == 'off'


@pytest.mark.parametrize('kind', ['memory', 'disk'])
@pytest.mark.parametrize('dtype', [np.float32, ml_dtypes.bfloat16])
def test_rows_are_read_as_they_were_written_in_any_order(kind, dtype, tmp_path):
    rows = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(dtype)
    filled = FeatureCache(kind, 10, (2, 3), dtype, str(tmp_path))
    filled.write(0, rows[:4])
    filled.write(4, rows[4:])
    got = filled.read(np.array([9, 0, 5, 5]))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, rows[[9, 0, 5, 5]])
    filled.close()


def test_the_file_of_a_cache_has_no_name_so_nothing_is_left_of_it(tmp_path):
    filled = FeatureCache('disk', 100, (1000,), np.float32, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    filled.close()


def test_a_full_disk_is_noticed_before_anything_is_computed(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'posix_fallocate', refuse)
    with pytest.raises(TrainingError, match=r'could not be created in .* \(No space left on device\); free some space'):
        FeatureCache('disk', 10, (10,), np.float32, str(tmp_path))


@pytest.mark.parametrize('kind', ['memory', 'disk'])
def test_a_filled_cache_returns_the_trunks_output_for_every_view(kind, tmp_path):
    def read_images(indices, view):
        return tf.cast(tf.reshape(indices, [-1, 1]) * 10 + view, tf.float32)

    filled = FeatureCache(kind, 14, (1,), np.float32, str(tmp_path))
    mine = range(1, 21, 3)  # the seven rows of the second of three workers
    seconds = fill_cache(filled, read_images, mine, 2, trunk=lambda images: images * 2, batch_size=3)
    assert seconds > 0
    read_rows = make_cache_reader(filled, mine, 2)
    for epoch in range(4):
        got = read_rows(tf.constant([19, 1], tf.int64), tf.constant(epoch, tf.int64))
        assert got.shape == (2, 1)
        assert got.numpy().ravel().tolist() == [2 * (190 + epoch % 2), 2 * (10 + epoch % 2)]
    filled.close()
