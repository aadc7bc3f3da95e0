"""CIFAR-10 batches -> sharded TFRecords in train/, val/ and test/, with a manifest.

Called by `python -m pipeline data`, and by `run` for the embedded sample. The files appear whole or not at
all: they are written beside the target and moved into place.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from components import features
from components.data import cifar10
from components.data.manifest import MANIFEST_NAME, Source, describe_request
from components.errors import DataError
from components.staging import stage_folder

RECORDS_PER_SHARD = 5_000
_VAL_SHARE = 0.1  # of the official training batches: 45,000 and 5,000 images
_CHUNK_RECORDS = 500  # what one Beam element holds, 1.5 MB


class Chunk(NamedTuple):
    """Consecutive records of one batch.

    prefix: 'train' or 'test', what the ids start with.
    first: the number of the first record in its part of the archive.
    images: uint8 [N, 32, 32, 3].
    labels: int64 [N].
    """

    prefix: str
    first: int
    images: np.ndarray
    labels: np.ndarray


def choose_split(record_id: str) -> str:
    """'test' for ids of the test batch; else 'val' for a stable tenth of the ids, and 'train'."""
    if record_id.startswith(features.TEST_SPLIT):
        return features.TEST_SPLIT
    digest = hashlib.sha256(record_id.encode()).digest()
    share = int.from_bytes(digest[:8], 'big') / 2**64
    return features.VAL_SPLIT if share < _VAL_SHARE else features.TRAIN_SPLIT


def encode_example(record_id: str, png: bytes, label: int) -> bytes:
    """One record of the data contract as a serialized tf.Example."""
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                features.IMAGE_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
                features.LABEL_KEY: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                features.ID_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[record_id.encode()])),
            }
        )
    ).SerializeToString(deterministic=True)


def limit_batches(batches: list[cifar10.Batch], limit: int | None) -> list[cifar10.Batch]:
    """Keeps the first `limit` records over all batches, the same share of each; None keeps all."""
    total = sum(len(batch.labels) for batch in batches)
    if limit is None or limit >= total:
        return batches
    ends = np.cumsum([0, *(len(batch.labels) for batch in batches)]) * limit // total
    counts = np.diff(ends)
    return [
        cifar10.Batch(batch.name, batch.images[:count], batch.labels[:count])
        for batch, count in zip(batches, counts, strict=True)
    ]


class ChunkFile(NamedTuple):
    """Where a chunk's bytes are: `count` records of the batch file `path`, from its record `start` on."""

    path: str
    prefix: str
    first: int
    start: int
    count: int


def spill_batches(batches: Iterable[cifar10.Batch], folder: Path) -> list[ChunkFile]:
    """Writes batches as batch files and cuts them into chunks.

    Beam gets references, because `beam.Create` would compress the images into the job's description. Ids count through
    the five training batches, and anew through the test batch.
    """
    chunks = []
    next_number = {features.TRAIN_SPLIT: 0, features.TEST_SPLIT: 0}
    for batch in batches:
        path = folder / batch.name
        path.write_bytes(cifar10.serialize_batch(batch.images, batch.labels))
        prefix = features.TEST_SPLIT if batch.name == cifar10.TEST_BATCH else features.TRAIN_SPLIT
        for start in range(0, len(batch.labels), _CHUNK_RECORDS):
            count = min(_CHUNK_RECORDS, len(batch.labels) - start)
            chunks.append(ChunkFile(str(path), prefix, next_number[prefix] + start, start, count))
        next_number[prefix] += len(batch.labels)
    return chunks


def read_chunk(chunk: ChunkFile) -> Chunk:
    """Reads and parses one chunk."""
    with open(chunk.path, 'rb') as file:
        file.seek(chunk.start * cifar10.RECORD_BYTES)
        batch = cifar10.parse_batch(chunk.path, file.read(chunk.count * cifar10.RECORD_BYTES))
    return Chunk(chunk.prefix, chunk.first, batch.images, batch.labels)


class Record(NamedTuple):
    """One record on its way to a file: its split, its label, and the serialized tf.Example."""

    split: str
    label: int
    example: bytes


def make_records(chunk: Chunk) -> Iterator[Record]:
    """Encodes a chunk's images as PNG (lossless) and gives every record its id and split."""
    pngs = tf.io.encode_png(chunk.images).numpy()
    for offset, (png, label) in enumerate(zip(pngs, chunk.labels, strict=True)):
        record_id = f'{chunk.prefix}_{chunk.first + offset:05d}'
        yield Record(choose_split(record_id), int(label), encode_example(record_id, png, int(label)))


class WriteSplits(beam.PTransform):
    """Chunks -> GZIP TFRecords `<out>/<split>/data-*.tfrecord.gz`, and their counts.

    Args:
      out: folder to write to.
      shards: files by split.

    Returns from expand:
      PCollection of ((split, label), count).
    """

    def __init__(self, out: Path, shards: dict[str, int]):
        super().__init__()
        self._out = out
        self._shards = shards

    def expand(self, chunks):
        records = chunks | 'MakeRecords' >> beam.FlatMap(make_records)
        parts = records | beam.Partition(lambda record, _: features.SPLITS.index(record.split), len(features.SPLITS))
        for split, part in zip(features.SPLITS, parts, strict=True):
            _ = (
                part
                | f'Serialize[{split}]' >> beam.Map(lambda record: record.example)
                | f'Write[{split}]'
                >> beam.io.WriteToTFRecord(
                    str(self._out / split / 'data'), file_name_suffix='.tfrecord.gz', num_shards=self._shards[split]
                )
            )
        return (
            records | 'Key' >> beam.Map(lambda record: (record.split, record.label)) | beam.combiners.Count.PerElement()
        )


def count_shards(batches: Iterable[cifar10.Batch]) -> dict[str, int]:
    """Files by split, so that none holds many more than RECORDS_PER_SHARD."""
    by_part = {features.TRAIN_SPLIT: 0, features.TEST_SPLIT: 0}
    for batch in batches:
        part = features.TEST_SPLIT if batch.name == cifar10.TEST_BATCH else features.TRAIN_SPLIT
        by_part[part] += len(batch.labels)
    train = by_part[features.TRAIN_SPLIT]
    records = {
        features.TRAIN_SPLIT: train * (1 - _VAL_SHARE),
        features.VAL_SPLIT: train * _VAL_SHARE,
        features.TEST_SPLIT: by_part[features.TEST_SPLIT],
    }
    return {split: max(1, math.ceil(count / RECORDS_PER_SHARD)) for split, count in records.items()}


def _read_counts(pattern: Path) -> dict[str, dict[str, int]]:
    """The counts the Beam job wrote, as {split: {class name: count}}, every split and class present."""
    counts = {split: dict.fromkeys(features.CLASS_NAMES, 0) for split in features.SPLITS}
    for file in pattern.parent.glob(f'{pattern.name}*'):
        for line in file.read_text().splitlines():
            (split, label), count = json.loads(line)
            counts[split][features.CLASS_NAMES[label]] += count
        file.unlink()
    return counts


def write_dataset(
    batches: list[cifar10.Batch], out: Path, source: Source, *, limit: int | None, beam_args: tuple[str, ...]
) -> dict:
    """Writes `train/`, `val/`, `test/` and the manifest under `out`, all at once or not at all.

    Args:
      batches: the archive, parsed.
      out: the folder to make; must be vacant (see `components.data.manifest.check_vacant`).
      source: goes into the manifest.
      limit: records to keep, None for all.
      beam_args: Beam's pipeline options.

    Returns:
      The manifest.

    Raises:
      DataError: a split would be empty.
    """
    batches = limit_batches(batches, limit)
    with stage_folder(out) as staging:
        spilled = staging / 'batches'
        spilled.mkdir()
        with beam.Pipeline(options=PipelineOptions(list(beam_args))) as pipeline:
            _ = (
                pipeline
                | beam.Create(spill_batches(batches, spilled))
                | 'ReadChunks' >> beam.Map(read_chunk)
                | WriteSplits(staging, count_shards(batches))
                | 'FormatCounts' >> beam.Map(json.dumps)
                | 'WriteCounts' >> beam.io.WriteToText(str(staging / 'counts'))
            )
        shutil.rmtree(spilled)
        by_class = _read_counts(staging / 'counts')
        counts = {split: sum(by_class[split].values()) for split in features.SPLITS}
        empty = [split for split, count in counts.items() if not count]
        if empty:
            raise DataError(
                f'{source.name} with limit {limit} leaves no record for {", ".join(empty)}; give a larger --limit.'
            )
        manifest = {**describe_request(source, limit), 'counts': counts, 'counts_by_class': by_class}
        (staging / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + '\n')
        if out.exists():
            out.rmdir()  # empty, or check_vacant would have refused it
        staging.rename(out)
    return manifest
