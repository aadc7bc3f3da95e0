"""Divides batch files: which records are kept, the chunks they are read in, their ids, and the split of each id.

Called by `components.data.tfrecords`.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from components import features
from components.data.cifar10 import TEST_BATCH, BatchFile

RECORDS_PER_SHARD = 5_000
_VAL_SHARE = 0.1  # of the official training batches: 45,000 and 5,000 images
_CHUNK_RECORDS = 500  # in one Beam element: 1.5 MB of images


class Chunk(NamedTuple):
    """Consecutive records of a batch file.

    Beam gets this reference instead of the images, which `beam.Create` would compress into the job's description.

    path: the batch file.
    start: the chunk's first record in that file.
    length: how many records the chunk has.
    id_prefix: 'train' or 'test'.
    first_id: the number in the id of the chunk's first record.
    """

    path: str
    start: int
    length: int
    id_prefix: str
    first_id: int


def limit_batches(batches: Sequence[BatchFile], limit: int | None) -> list[BatchFile]:
    """Keeps `limit` records in all, the same share of every batch, from its first record on; None keeps all."""
    total = sum(batch.records for batch in batches)
    if limit is None or limit >= total:
        return list(batches)
    ends = np.cumsum([0, *(batch.records for batch in batches)]) * limit // total
    return [batch._replace(records=int(kept)) for batch, kept in zip(batches, np.diff(ends), strict=True)]


def _get_part(batch: BatchFile) -> str:
    """Returns which part of the archive a batch belongs to: 'train' or 'test'."""
    return features.TEST_SPLIT if batch.path.name == TEST_BATCH else features.TRAIN_SPLIT


def cut_chunks(batches: Sequence[BatchFile]) -> list[Chunk]:
    """Cuts batch files into chunks. Ids count through the five training batches, and start again in the test batch."""
    chunks = []
    next_id = {features.TRAIN_SPLIT: 0, features.TEST_SPLIT: 0}
    for batch in batches:
        part = _get_part(batch)
        for start in range(0, batch.records, _CHUNK_RECORDS):
            length = min(_CHUNK_RECORDS, batch.records - start)
            chunks.append(Chunk(str(batch.path), start, length, part, next_id[part] + start))
        next_id[part] += batch.records
    return chunks


def choose_split(record_id: str) -> str:
    """Returns 'test' for ids of the test batch, 'val' for a tenth of the others, chosen by a hash, and else 'train'."""
    if record_id.startswith(features.TEST_SPLIT):
        return features.TEST_SPLIT
    digest = hashlib.sha256(record_id.encode()).digest()
    share = int.from_bytes(digest[:8], 'big') / 2**64
    return features.VAL_SPLIT if share < _VAL_SHARE else features.TRAIN_SPLIT


def count_shards(batches: Sequence[BatchFile]) -> dict[str, int]:
    """Computes the number of files of each split, so that none holds many more than RECORDS_PER_SHARD records."""
    by_part = {features.TRAIN_SPLIT: 0, features.TEST_SPLIT: 0}
    for batch in batches:
        by_part[_get_part(batch)] += batch.records
    train = by_part[features.TRAIN_SPLIT]
    records = {
        features.TRAIN_SPLIT: train * (1 - _VAL_SHARE),
        features.VAL_SPLIT: train * _VAL_SHARE,
        features.TEST_SPLIT: by_part[features.TEST_SPLIT],
    }
    return {split: max(1, math.ceil(expected / RECORDS_PER_SHARD)) for split, expected in records.items()}
