"""The checks of DataCheck that need only counts: faults of records, and classes that are missing or out of balance."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from components import features
from components.data_gate.config import DataGateConfig
from components.data_gate.findings import Finding
from components.data_gate.tally import Tally

# A class is out of balance only when its count is off by more than this many standard deviations of that count:
# what is less may be chance.
_SIGMAS = 4


class RecordFault(NamedTuple):
    """A kind of fault that single records have, in the words of a Finding; feature is '' for the whole record."""

    feature: str
    expected: str
    found: str


_SIZE = 'x'.join(map(str, features.IMAGE_SHAPE[:2]))
# By kind; DataGateConfig has a bound `max_<kind>` for each.
RECORD_FAULTS = {
    'missing': RecordFault(
        '', 'one image (bytes) and one label (int64) in each record', 'lack an image or a label, or have several'
    ),
    'undecodable': RecordFault(features.IMAGE_KEY, 'PNG or JPEG', 'do not decode'),
    'wrong_size': RecordFault(features.IMAGE_KEY, _SIZE, 'have a different size'),
    'wrong_channels': RecordFault(features.IMAGE_KEY, 'RGB', 'have different channels'),
    'oversized': RecordFault(
        features.IMAGE_KEY, 'at most data_gate.max_pixels', 'declare so many pixels that they were not decoded'
    ),
    'bad_labels': RecordFault(
        features.LABEL_KEY, f'0 to {features.NUM_CLASSES - 1}', 'have a label that is not a class'
    ),
    'test_duplicates': RecordFault(
        features.IMAGE_KEY, 'images that no other split has', 'have an image that is in a different split too'
    ),
}


def find_faults(tally: Tally, config: DataGateConfig) -> list[Finding]:
    """Compares the counts of all splits with the bounds, and returns a finding for each fault."""
    findings = []
    for split in features.SPLITS:
        if not tally.records[split]:
            findings.append(Finding('error', 'empty', split, '', 'at least one record', 'the split is empty', 0))
            continue
        findings += _find_record_faults(tally, split, config)
        findings += _find_missing_classes(tally, split)
        findings += _find_imbalance(tally, split, config)
    return findings


def _find_record_faults(tally: Tally, split: str, config: DataGateConfig) -> Iterator[Finding]:
    """Finds faults of single records; up to the bound they are warnings."""
    total = tally.records[split]
    for kind, fault in RECORD_FAULTS.items():
        count = tally.faults[split].get(kind, 0)
        if count:
            severity = 'error' if count > getattr(config, f'max_{kind}') * total else 'warning'
            found = f'{count:,} of {total:,} records {fault.found}'
            ids = tuple(tally.ids[split].get(kind, ()))
            yield Finding(severity, kind, split, fault.feature, fault.expected, found, count, ids)


def _name_classes(labels: Iterable[int]) -> str:
    return ', '.join(features.CLASS_NAMES[label] for label in labels)


def _find_missing_classes(tally: Tally, split: str) -> Iterator[Finding]:
    """Finds classes without a record. That is only a warning in val, which may be too small to have every class."""
    missing = [label for label in range(features.NUM_CLASSES) if not tally.classes[split].get(label)]
    if missing:
        severity = 'warning' if split == features.VAL_SPLIT else 'error'
        found = f'no record of {_name_classes(missing)}'
        yield Finding(severity, 'missing_class', split, features.LABEL_KEY, 'every class', found, 0)


def _find_imbalance(tally: Tally, split: str, config: DataGateConfig) -> Iterator[Finding]:
    """Finds classes whose share of the split differs from their share of train by more than the bound and chance."""
    train, train_total = tally.classes[features.TRAIN_SPLIT], tally.records[features.TRAIN_SPLIT]
    if split == features.TRAIN_SPLIT or not train_total:
        return
    total = tally.records[split]
    for label in range(features.NUM_CLASSES):
        count = tally.classes[split].get(label, 0)
        wanted = total * train.get(label, 0) / train_total
        tolerance = max(config.max_imbalance * wanted, _SIGMAS * wanted**0.5)
        if abs(count - wanted) > tolerance:
            found = f'{count:,} of {total:,} records are {features.CLASS_NAMES[label]}'
            expected = f'about {wanted:,.0f}, the same share as in train'
            yield Finding('error', 'imbalance', split, features.LABEL_KEY, expected, found, count)
