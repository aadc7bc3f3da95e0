"""What TFDV's statistics cannot see of the records: every image decoded, every digest compared, classes counted.

A Beam pipeline that collects nothing in one place but counts and the first few ids of each fault.
"""

import collections
import hashlib
import io
import json
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
import tensorflow as tf
from google.protobuf import message
from PIL import Image

from components import features
from components.data_gate.config import DataGateConfig

SAMPLE = 10  # ids kept of each fault
_FORMATS = ('PNG', 'JPEG')
_SIGMAS = 4  # by how many standard deviations of its count a class's share must differ to be called another one


class Finding(NamedTuple):
    """A fault of the data.

    severity: 'error' stops the run, 'warning' is reported.
    kind: such as 'undecodable'.
    split: where; '' for all.
    feature: which; '' for the whole record.
    expected, found: in words.
    count: how many records.
    ids: the first ten of them in the order of their names; empty where the fault is of no single record.
    """

    severity: str
    kind: str
    split: str
    feature: str
    expected: str
    found: str
    count: int
    ids: tuple[str, ...] = ()

    def to_sentence(self) -> str:
        """Such as 'test, image: 2 of 90 records do not decode; expected PNG or JPEG (test_00001, test_00002)'."""
        where = ', '.join(part for part in (self.split, self.feature) if part) or 'data'
        more = ', ...' if self.count > len(self.ids) else ''
        ids = f' ({", ".join(self.ids)}{more})' if self.ids else ''
        return f'{where}: {self.found}; expected {self.expected}{ids}'


class Tally(NamedTuple):
    """What the records of all splits amount to.

    records: by split.
    classes: records by split and label.
    faults: records by split and kind.
    ids: the first few by split and kind.
    """

    records: dict[str, int]
    classes: dict[str, dict[int, int]]
    faults: dict[str, dict[str, int]]
    ids: dict[str, dict[str, list[str]]]


# kind -> (feature, what was expected, what was found), for faults of single records.
RECORD_FAULTS = {
    'missing': ('', 'one image (bytes) and one label (int64) in each record', 'lack an image or a label'),
    'undecodable': (features.IMAGE_KEY, 'PNG or JPEG', 'do not decode'),
    'wrong_size': (features.IMAGE_KEY, 'x'.join(map(str, features.IMAGE_SHAPE[:2])), 'are of another size'),
    'wrong_channels': (features.IMAGE_KEY, 'RGB', 'have other channels'),
    'oversized': (features.IMAGE_KEY, 'images of a sane size', 'declare more pixels than are ever decoded'),
    'bad_labels': (features.LABEL_KEY, f'0 to {features.NUM_CLASSES - 1}', 'have a label that is no class'),
    'test_duplicates': (features.IMAGE_KEY, 'images that no other split has', 'are in another split too'),
}


def inspect_image(encoded: bytes, max_pixels: int) -> tuple[str | None, bytes]:
    """The fault of an image, None if it has none, and the digest of its pixels, empty if it was not decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(encoded), formats=_FORMATS)  # the header alone
            if image.width * image.height > max_pixels:
                return 'oversized', b''
            if (image.height, image.width) != features.IMAGE_SHAPE[:2]:
                return 'wrong_size', b''
            if image.mode != 'RGB':
                return 'wrong_channels', b''
            return None, hashlib.sha256(image.tobytes()).digest()
        except Image.DecompressionBombError:
            return 'oversized', b''
        except (OSError, SyntaxError, ValueError):  # what Pillow raises for bytes that are no whole image
            return 'undecodable', b''


class Record(NamedTuple):
    """One record's result. label: None if it has none; faults: kinds; digest: of the pixels, empty if not decoded."""

    split: str
    id: str
    label: int | None
    faults: tuple[str, ...]
    digest: bytes


def inspect_record(serialized: bytes, split: str, max_pixels: int) -> Record:
    """Checks one serialized tf.Example of a split."""
    try:
        feature = tf.train.Example.FromString(serialized).features.feature
    except message.DecodeError:
        feature = {}
    images = feature[features.IMAGE_KEY].bytes_list.value if features.IMAGE_KEY in feature else ()
    labels = feature[features.LABEL_KEY].int64_list.value if features.LABEL_KEY in feature else ()
    ids = feature[features.ID_KEY].bytes_list.value if features.ID_KEY in feature else ()
    name = ids[0].decode(errors='replace') if ids else f'sha256:{hashlib.sha256(serialized).hexdigest()[:12]}'
    faults, digest = [], b''
    if len(images) != 1 or len(labels) != 1:
        faults.append('missing')
    if len(images) == 1:
        fault, digest = inspect_image(images[0], max_pixels)
        faults += [fault] if fault else []
    label = labels[0] if len(labels) == 1 else None
    if label is not None and not 0 <= label < features.NUM_CLASSES:
        faults.append('bad_labels')
    return Record(split, name, label, tuple(faults), digest)


def _find_duplicates(group: tuple[bytes, Iterable[tuple[str, str]]]) -> Iterator[tuple[tuple[str, str], str]]:
    """The test records of a digest that other splits have too: ((split, kind), id)."""
    _, places = group
    places = sorted(places)
    others = [name for split, name in places if split != features.TEST_SPLIT]
    if others:
        for split, name in places:
            if split == features.TEST_SPLIT:
                yield (split, 'test_duplicates'), f'{name} = {others[0]}'


def write_tally(pipeline: beam.Pipeline, patterns: dict[str, str], max_pixels: int, out: str) -> None:
    """Adds the checks to a Beam pipeline; they write small JSON lines, which `read_tally` reads.

    Args:
      pipeline: to add to.
      patterns: the GZIP TFRecord files of each split.
      max_pixels: see DataGateConfig.
      out: prefix of the files to write.
    """
    splits = []
    for split, pattern in patterns.items():
        read = pipeline | f'Read {split}' >> beam.io.ReadFromTFRecord(
            pattern, compression_type=beam.io.filesystem.CompressionTypes.GZIP, validate=False
        )
        splits.append(read | f'Inspect {split}' >> beam.Map(inspect_record, split, max_pixels))
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
    ids = faults | 'First ids' >> beam.combiners.Top.SmallestPerKey(SAMPLE)
    lines = (
        classes | 'Class lines' >> beam.MapTuple(lambda key, count: json.dumps(['class', *key, count])),
        counts | 'Count lines' >> beam.MapTuple(lambda key, count: json.dumps(['fault', *key, count])),
        ids | 'Id lines' >> beam.MapTuple(lambda key, names: json.dumps(['ids', *key, list(names)])),
    )
    _ = lines | 'Lines' >> beam.Flatten() | beam.io.WriteToText(out, num_shards=1)


def read_tally(out: str) -> Tally:
    """What `write_tally` wrote."""
    records = dict.fromkeys(features.SPLITS, 0)
    classes, faults, ids = (collections.defaultdict(dict) for _ in range(3))
    for path in tf.io.gfile.glob(f'{out}*'):
        with tf.io.gfile.GFile(path) as file:
            for line in file:
                what, split, key, value = json.loads(line)
                {'class': classes, 'fault': faults, 'ids': ids}[what][split][key] = value
                if what == 'class':
                    records[split] += value
    return Tally(records, classes, faults, ids)


def _name_classes(labels: Iterable[int]) -> str:
    return ', '.join(features.CLASS_NAMES[label] for label in labels)


def find_faults(tally: Tally, config: DataGateConfig) -> list[Finding]:
    """Holds the tally of all splits against the thresholds."""
    findings = []
    for split in features.SPLITS:
        total = tally.records[split]
        if not total:
            findings.append(Finding('error', 'empty', split, '', 'records', 'the split has none', 0))
            continue
        for kind, (feature, expected, found) in RECORD_FAULTS.items():
            count, allowed = tally.faults[split].get(kind, 0), getattr(config, f'max_{kind}')
            if count:
                severity = 'error' if count > allowed * total else 'warning'
                found = f'{count:,} of {total:,} records {found}'
                ids = tuple(tally.ids[split].get(kind, ()))
                findings.append(Finding(severity, kind, split, feature, expected, found, count, ids))
        findings += _find_class_faults(tally, split, config)
    return findings


def _find_class_faults(tally: Tally, split: str, config: DataGateConfig) -> Iterator[Finding]:
    counts, total = tally.classes[split], tally.records[split]
    missing = [label for label in range(features.NUM_CLASSES) if not counts.get(label)]
    if missing:
        severity = 'warning' if split == features.VAL_SPLIT else 'error'
        found = f'no record of {_name_classes(missing)}'
        yield Finding(severity, 'missing_class', split, features.LABEL_KEY, 'every class', found, 0)
    train, train_total = tally.classes[features.TRAIN_SPLIT], tally.records[features.TRAIN_SPLIT]
    if split == features.TRAIN_SPLIT or not train_total:
        return
    for label in range(features.NUM_CLASSES):
        wanted = total * train.get(label, 0) / train_total
        tolerance = max(config.max_imbalance * wanted, _SIGMAS * wanted**0.5)
        if abs(counts.get(label, 0) - wanted) > tolerance:
            found = f'{counts.get(label, 0):,} of {total:,} records are {features.CLASS_NAMES[label]}'
            expected = f'{wanted:,.0f}, as train has them'
            yield Finding('error', 'imbalance', split, features.LABEL_KEY, expected, found, counts.get(label, 0))
