"""A tally of the records: a Beam pipeline decodes every image, compares every digest, and counts classes and faults.

This finds what TFDV's statistics cannot see. Called by DataCheck. Only counts, and the first few ids of each fault,
are ever collected in one place.
"""

import collections
import hashlib
import io
import json
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import tensorflow as tf
from google.protobuf import message
from PIL import Image

from components import features
from components.contract import DataContract
from components.progress import advance_tracked

WORK = 'records'  # as what the inspection is tracked
_KEPT_IDS = 10  # of each fault
_FORMATS = ('PNG', 'JPEG')


class Tally(NamedTuple):
    """What was counted in the records of all splits.

    records: number of records, by split.
    classes: number of records, by split and label.
    faults: number of records, by split and kind of fault.
    ids: the first ids, by split and kind of fault.
    """

    records: dict[str, int]
    classes: dict[str, dict[int, int]]
    faults: dict[str, dict[str, int]]
    ids: dict[str, dict[str, list[str]]]


def inspect_image(encoded: bytes, max_pixels: int, contract: DataContract) -> tuple[str | None, bytes]:
    """Checks an encoded image.

    Args:
      encoded: the bytes of the image.
      max_pixels: an image that declares more pixels is not decoded.
      contract: says which sizes are right.

    Returns:
      The kind of its fault, None if it has none, and the SHA-256 of its pixels, empty if it was not decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(encoded), formats=_FORMATS)  # reads only the header
            if image.width * image.height > max_pixels:
                return 'oversized', b''
            longer = contract.image_size if contract.is_square else max(image.size)
            if (min(image.size), max(image.size)) != (contract.image_size, longer):
                return 'wrong_size', b''
            if image.mode != 'RGB':
                return 'wrong_channels', b''
            return None, hashlib.sha256(image.tobytes()).digest()
        except Image.DecompressionBombError:
            return 'oversized', b''
        except (OSError, SyntaxError, ValueError):  # what Pillow raises for bytes that are not a whole image
            return 'undecodable', b''


class Record(NamedTuple):
    """What was found in one record.

    split: the record's split.
    id: the record's id, or a digest of its bytes when it has none.
    label: None when it has none.
    faults: the kinds of its faults.
    digest: of the image's pixels; empty when the image was not decoded.
    """

    split: str
    id: str
    label: int | None
    faults: tuple[str, ...]
    digest: bytes


def inspect_record(serialized: bytes, split: str, max_pixels: int, contract: DataContract) -> Record:
    """Checks one serialized tf.Example of a split; see `inspect_image` for `max_pixels` and `contract`."""
    try:
        feature = tf.train.Example.FromString(serialized).features.feature
    except message.DecodeError:
        feature = tf.train.Features().feature
    # A feature that is missing, or has a different type, reads as an empty list.
    images = feature[features.IMAGE_KEY].bytes_list.value
    labels = feature[features.LABEL_KEY].int64_list.value
    ids = feature[features.ID_KEY].bytes_list.value
    name = ids[0].decode(errors='replace') if ids else f'sha256:{hashlib.sha256(serialized).hexdigest()[:12]}'
    faults, digest = [], b''
    if len(images) != 1 or len(labels) != 1:
        faults.append('missing')
    if len(images) == 1:
        fault, digest = inspect_image(images[0], max_pixels, contract)
        faults += [fault] if fault else []
    label = labels[0] if len(labels) == 1 else None
    if label is not None and not 0 <= label < contract.num_classes:
        faults.append('bad_labels')
    advance_tracked(WORK, 1)
    return Record(split, name, label, tuple(faults), digest)


def _find_duplicates(group: tuple[bytes, Iterable[tuple[str, str]]]) -> Iterator[tuple[tuple[str, str], str]]:
    """Finds test images that other splits have too.

    Args:
      group: a digest of pixels, and (split, id) of every record with it.

    Yields:
      ((split, kind of fault), 'id = id of the first such record in a different split').
    """
    _, records = group
    ordered = sorted(records)
    others = [name for split, name in ordered if split != features.TEST_SPLIT]
    if others:
        for split, name in ordered:
            if split == features.TEST_SPLIT:
                yield (split, 'test_duplicates'), f'{name} = {others[0]}'


def write_tally(pipeline: Any, patterns: dict[str, str], max_pixels: int, contract: DataContract, out: str) -> None:
    """Adds the checks to a Beam pipeline; they write small JSON lines, which `read_tally` reads.

    Args:
      pipeline: the beam.Pipeline to add to.
      patterns: the GZIP TFRecord files of each split.
      max_pixels, contract: see `inspect_image`.
      out: prefix of the files to write.
    """
    splits = []
    for split, pattern in patterns.items():
        read = pipeline | f'Read {split}' >> beam.io.ReadFromTFRecord(
            pattern, compression_type=beam.io.filesystem.CompressionTypes.GZIP, validate=False
        )
        splits.append(read | f'Inspect {split}' >> beam.Map(inspect_record, split, max_pixels, contract))
    records = splits | beam.Flatten()

    classes = records | beam.Map(lambda record: (record.split, record.label)) | beam.combiners.Count.PerElement()
    duplicates = (
        records
        | beam.Filter(lambda record: record.digest)
        | beam.Map(lambda record: (record.digest, (record.split, record.id)))
        | beam.GroupByKey()
        | beam.FlatMap(_find_duplicates)
    )
    of_records = records | 'Faults' >> beam.FlatMap(
        lambda record: [((record.split, kind), record.id) for kind in record.faults]
    )
    faults = (of_records, duplicates) | 'All faults' >> beam.Flatten()
    counts = faults | 'Count faults' >> beam.combiners.Count.PerKey()
    ids = faults | 'First ids' >> beam.combiners.Top.SmallestPerKey(_KEPT_IDS)
    lines = (
        classes | 'Class lines' >> beam.MapTuple(lambda key, count: json.dumps(['class', *key, count])),
        counts | 'Count lines' >> beam.MapTuple(lambda key, count: json.dumps(['fault', *key, count])),
        ids | 'Id lines' >> beam.MapTuple(lambda key, names: json.dumps(['ids', *key, list(names)])),
    )
    _ = lines | 'Lines' >> beam.Flatten() | beam.io.WriteToText(out, num_shards=1)


def read_tally(out: str) -> Tally:
    """Reads what `write_tally` wrote; `out` is the same prefix."""
    tally = Tally(
        records=dict.fromkeys(features.SPLITS, 0),
        classes=collections.defaultdict(dict),
        faults=collections.defaultdict(dict),
        ids=collections.defaultdict(dict),
    )
    prefix = Path(out)
    for file in prefix.parent.glob(f'{prefix.name}*'):
        for line in file.read_text().splitlines():
            what, split, key, value = json.loads(line)
            if what == 'class':
                tally.classes[split][key] = value
                tally.records[split] += value
            elif what == 'fault':
                tally.faults[split][key] = value
            else:
                tally.ids[split][key] = value
    return tally
