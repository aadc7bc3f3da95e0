"""The checks of DataCheck that need only counts: faults of records, and classes that are missing or out of balance."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scipy import stats

from components import features
from components.contract import DataContract
from components.data_gate.config import DataGateConfig
from components.data_gate.findings import Finding
from components.data_gate.tally import Tally

# A class is out of balance only when chance, by Poisson's distribution, gives a count so far off more rarely than it
# gives four standard deviations of a normal distribution. A normal distribution itself would not fit a few images.
_CHANCE = float(stats.norm.sf(4))
_NAMED = 5  # classes that the findings about one split name


class RecordFault(NamedTuple):
    """A kind of fault that single records have, in the words of a Finding; feature is '' for the whole record."""

    feature: str
    expected: str
    found: str


def describe_record_faults(contract: DataContract) -> dict[str, RecordFault]:
    """Returns the kinds of faults by name; DataGateConfig has a bound `max_<kind>` for each."""
    size = f'a shorter side of {contract.image_size} pixels'
    if contract.is_square:
        size = f'{contract.image_size}x{contract.image_size}'
    return {
        'missing': RecordFault(
            '', 'one image (bytes) and one label (int64) in each record', 'lack an image or a label, or have several'
        ),
        'undecodable': RecordFault(features.IMAGE_KEY, 'PNG or JPEG', 'do not decode'),
        'wrong_size': RecordFault(features.IMAGE_KEY, size, 'have a different size'),
        'wrong_channels': RecordFault(features.IMAGE_KEY, 'RGB', 'have different channels'),
        'oversized': RecordFault(
            features.IMAGE_KEY, 'at most data_gate.max_pixels', 'declare so many pixels that they were not decoded'
        ),
        'bad_labels': RecordFault(
            features.LABEL_KEY, f'0 to {contract.num_classes - 1}', 'have a label that is not a class'
        ),
        'test_duplicates': RecordFault(
            features.IMAGE_KEY, 'images that no other split has', 'have an image that is in a different split too'
        ),
    }


def find_faults(tally: Tally, config: DataGateConfig, contract: DataContract) -> list[Finding]:
    """Compares the counts of all splits with the bounds, and returns a finding for each fault."""
    findings = []
    for split in features.SPLITS:
        if not tally.records[split]:
            findings.append(Finding('error', 'empty', split, '', 'at least one record', 'the split is empty', 0))
            continue
        findings += _find_record_faults(tally, split, config, contract)
        findings += _find_missing_classes(tally, split, contract)
        findings += _find_imbalance(tally, split, config, contract)
    return findings


def _find_record_faults(tally: Tally, split: str, config: DataGateConfig, contract: DataContract) -> Iterator[Finding]:
    """Finds faults of single records; up to the bound they are warnings."""
    total = tally.records[split]
    for kind, fault in describe_record_faults(contract).items():
        count = tally.faults[split].get(kind, 0)
        if count:
            severity = 'error' if count > getattr(config, f'max_{kind}') * total else 'warning'
            found = f'{count:,} of {total:,} records {fault.found}'
            ids = tuple(tally.ids[split].get(kind, ()))
            yield Finding(severity, kind, split, fault.feature, fault.expected, found, count, ids)


def _list_some(names: Sequence[str]) -> str:
    """Lists the first names, and counts the others: 'a, b, c, d, e and 12 more'."""
    more = f' and {len(names) - _NAMED:,} more' if len(names) > _NAMED else ''
    return ', '.join(names[:_NAMED]) + more


def _find_missing_classes(tally: Tally, split: str, contract: DataContract) -> Iterator[Finding]:
    """Finds classes without a record. That is only a warning in val, which may be too small to have every class."""
    missing = [name for label, name in enumerate(contract.class_names) if not tally.classes[split].get(label)]
    if missing:
        severity = 'warning' if split == features.VAL_SPLIT else 'error'
        found = f'no record of {_list_some(missing)}'
        yield Finding(severity, 'missing_class', split, features.LABEL_KEY, 'every class', found, 0)


def _find_imbalance(tally: Tally, split: str, config: DataGateConfig, contract: DataContract) -> Iterator[Finding]:
    """Finds classes whose share of the split differs from their share of train by more than the bound and chance.

    The first of them get a finding each, and all others one together.
    """
    train, train_total = tally.classes[features.TRAIN_SPLIT], tally.records[features.TRAIN_SPLIT]
    if split == features.TRAIN_SPLIT or not train_total:
        return
    total, unbalanced = tally.records[split], []
    for label, name in enumerate(contract.class_names):
        count = tally.classes[split].get(label, 0)
        wanted = total * train.get(label, 0) / train_total
        chance = min(stats.poisson.cdf(count, wanted), stats.poisson.sf(count - 1, wanted))
        if abs(count - wanted) > config.max_imbalance * wanted and chance < _CHANCE:
            unbalanced.append((name, count, wanted))
    for name, count, wanted in unbalanced[:_NAMED]:
        found = f'{count:,} of {total:,} records are {name}'
        expected = f'about {wanted:,.0f}, the same share as in train'
        yield Finding('error', 'imbalance', split, features.LABEL_KEY, expected, found, count)
    others = unbalanced[_NAMED:]
    if others:
        found = f'{len(others):,} more classes have a different share of the records'
        count = sum(count for _, count, _ in others)
        yield Finding('error', 'imbalance', split, features.LABEL_KEY, 'the same shares as in train', found, count)
