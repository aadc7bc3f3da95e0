"""Writes CIFAR-10's batch files as sharded TFRecords in train/, val/ and test/, with a manifest.

Called by `pipeline.data`, which imports this module late: Beam and TensorFlow take some 15 seconds to import. The data
folder appears whole or not at all: it is written beside its place and then renamed.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from components import features
from components.contract import DataContract
from components.data import cifar10
from components.data.cifar10 import BatchFile
from components.data.manifest import MANIFEST_NAME, Manifest, Source, check_written, describe_request
from components.data.splits import Chunk, choose_split, count_shards, cut_chunks, limit_batches
from components.errors import DataError
from components.progress import advance_tracked, track
from components.staging import stage_folder

_WORK = 'records'  # under which name the writing is tracked


def encode_example(record_id: str, png: bytes, label: int) -> bytes:
    """Serializes one record of the data contract as a tf.Example."""
    example = tf.train.Example(
        features=tf.train.Features(
            feature={
                features.IMAGE_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
                features.LABEL_KEY: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                features.ID_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[record_id.encode()])),
            }
        )
    )
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


class Record(NamedTuple):
    """One record on its way to a file: its split, its label, and the serialized tf.Example."""

    split: str
    label: int
    example: bytes


def make_records(chunk: Chunk) -> Iterator[Record]:
    """Reads a chunk, encodes its images as PNG (lossless), and gives every record its id and split."""
    batch = cifar10.read_records(Path(chunk.path), chunk.start, chunk.length)
    pngs = tf.io.encode_png(batch.images).numpy()
    for offset, (png, label) in enumerate(zip(pngs, batch.labels, strict=True)):
        record_id = f'{chunk.id_prefix}_{chunk.first_id + offset:05d}'
        yield Record(choose_split(record_id), int(label), encode_example(record_id, png, int(label)))
    advance_tracked(_WORK, chunk.length)


class WriteSplits(beam.PTransform):
    """Turns chunks into GZIP TFRecords `<out>/<split>/data-*.tfrecord.gz`, and counts their records.

    Args:
      out: folder to write to.
      shards: number of files by split.

    Returns from expand:
      PCollection of ((split, label), number of records).
    """

    def __init__(self, out: Path, shards: dict[str, int]):
        super().__init__()
        self._out = out
        self._shards = shards

    def expand(self, chunks: Any) -> Any:
        """See the class; `chunks` is a PCollection of Chunk."""
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


def _read_counts(prefix: Path, class_names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Reads and removes the counts that the Beam job wrote; returns {split: {class name: records}}, zeros included."""
    counts = {split: dict.fromkeys(class_names, 0) for split in features.SPLITS}
    for file in prefix.parent.glob(f'{prefix.name}*'):
        for line in file.read_text().splitlines():
            (split, label), count = json.loads(line)
            counts[split][class_names[label]] += count
        file.unlink()
    return counts


def write_dataset(
    batches: Sequence[BatchFile],
    out: Path,
    source: Source,
    *,
    limit: int | None,
    beam_args: Sequence[str],
    contract: DataContract = cifar10.CONTRACT,
) -> Manifest:
    """Writes `train/`, `val/`, `test/` and the manifest into the folder `out`, all at once or not at all.

    Args:
      batches: the six batch files, in the order of `cifar10.BATCHES`.
      out: the folder to make; must be vacant (see `components.data.manifest.check_vacant`).
      source: where the batches come from, for the manifest.
      limit: records to keep, the same share of every batch; None for all.
      beam_args: Beam's pipeline options.
      contract: the class names, and the size of the images, for the manifest.

    Returns:
      The manifest.

    Raises:
      DataError: a split would be empty, or Beam's workers wrote into a folder of their own.
    """
    batches = limit_batches(batches, limit)
    with stage_folder(out) as staging:
        total = sum(batch.records for batch in batches)
        options = PipelineOptions(list(beam_args))
        with track(_WORK, total, 'records'), beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | beam.Create(cut_chunks(batches))
                | WriteSplits(staging, count_shards(batches))
                | 'FormatCounts' >> beam.Map(json.dumps)
                | 'WriteCounts' >> beam.io.WriteToText(str(staging / 'counts'))
            )
        check_written(staging, 'counts*')
        by_class = _read_counts(staging / 'counts', contract.class_names)
        counts = {split: sum(by_class[split].values()) for split in features.SPLITS}
        empty = [split for split, count in counts.items() if not count]
        if empty:
            raise DataError(
                f'{source.name} with limit {limit} leaves no record for {", ".join(empty)}; give a larger --limit.'
            )
        manifest = {
            **describe_request(source, limit),
            'contract': contract.to_dict(),
            'counts': counts,
            'counts_by_class': by_class,
        }
        (staging / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + '\n')
        if out.exists():
            out.rmdir()  # it is empty, or check_vacant would have refused it
        staging.rename(out)
    return manifest
