"""Writes pictures that are ready as sharded GZIP TFRecords `<split>/data-*.tfrecord.gz`.

Called by `pipeline.data_images`, which imports this module late, because it imports TensorFlow.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import tensorflow as tf

from components import features
from components.data.images.dataset import Dataset, Picture
from components.data.images.splitting import hash_text
from components.data.splits import RECORDS_PER_SHARD
from components.data.tfrecords import encode_example
from components.progress import track

_BYTES_PER_SHARD = 200_000_000


def _cut_shards(pictures: Sequence[Picture]) -> list[Sequence[Picture]]:
    """Divides the pictures of a split into shards of about the same number of records."""
    size = sum(picture.length for picture in pictures)
    shards = max(1, math.ceil(size / _BYTES_PER_SHARD), math.ceil(len(pictures) / RECORDS_PER_SHARD))
    borders = [len(pictures) * number // shards for number in range(shards + 1)]
    return [pictures[first:last] for first, last in itertools.pairwise(borders)]


def _read_bytes(bytes_file: BinaryIO, picture: Picture) -> bytes:
    bytes_file.seek(picture.start)
    return bytes_file.read(picture.length)


def write_records(dataset: Dataset, out: Path) -> None:
    """Writes a record for each picture, in an order that is shuffled by the hash of its id.

    Args:
      dataset: the pictures; the class names of its contract give the labels.
      out: the folder in which the folders of the splits are made.
    """
    labels = {name: label for label, name in enumerate(dataset.contract.class_names)}
    options = tf.io.TFRecordOptions(compression_type='GZIP')
    with track('records', len(dataset.pictures), 'records') as advance, dataset.bytes_file.open('rb') as bytes_file:
        for split in features.SPLITS:
            pictures = [picture for picture in dataset.pictures if picture.split == split]
            shards = _cut_shards(sorted(pictures, key=lambda picture: hash_text(picture.file.name)))
            (out / split).mkdir()
            for number, shard in enumerate(shards):
                file = out / split / f'data-{number:05d}-of-{len(shards):05d}.tfrecord.gz'
                with tf.io.TFRecordWriter(str(file), options) as writer:
                    for picture in shard:
                        content = _read_bytes(bytes_file, picture)
                        writer.write(encode_example(picture.file.name, content, labels[picture.file.class_name]))
                        advance(1)
