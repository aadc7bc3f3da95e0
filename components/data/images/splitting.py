"""Which split each picture goes to, where the person has not said it: 80/10/10, in every class, by a stable hash.

Called by `components.data.images.dataset`. In each class the groups are put in the order of their hash. The first tenth
goes to `test`, the next tenth to `val`, the rest to `train`, each at least one group. So pictures that are added later
move only those few that are at the borders.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from components import features
from components.data.images.class_names import join_names
from components.data.images.listing import ImageFile
from components.errors import DataError, UsageError

_SHARE = 0.1  # of test, and of val


class _Group(NamedTuple):
    """Pictures that stay together: a key that tells groups apart, what is hashed, and the pictures' positions."""

    key: tuple[bool, str]
    positions: list[int]

    @property
    def order(self) -> bytes:
        return hash_text(self.key[1])


def hash_text(text: str) -> bytes:
    """Returns the SHA-256 of a text, by which groups and records are put in an order that never changes."""
    return hashlib.sha256(text.encode()).digest()


def compile_group_by(pattern: str) -> re.Pattern[str]:
    """Compiles the expression of --group-by.

    Raises:
      UsageError: it is not a regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f'--group-by {pattern!r} is not a regular expression: {error}.') from error


def _find_key(name: str, group_by: re.Pattern[str] | None) -> tuple[bool, str]:
    """Returns the key of a picture's group: of the expression's first group, its whole match, or else of its own."""
    match = group_by.search(name) if group_by else None
    text = match[1 if match.re.groups else 0] if match else None
    return (True, text) if text else (False, name)


def _make_groups(files: Sequence[ImageFile], group_by: re.Pattern[str] | None) -> list[_Group]:
    positions: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for position, file in enumerate(files):
        positions[_find_key(file.name, group_by)].append(position)
    return [_Group(*item) for item in positions.items()]


def _stratify(groups: Iterable[_Group], files: Sequence[ImageFile]) -> list[list[_Group]]:
    """Divides groups by class. A group with several classes counts for the one that the fewest groups have."""
    classes = {group.key: {files[position].class_name for position in group.positions} for group in groups}
    spread = Counter(name for names in classes.values() for name in names)
    strata: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        strata[min(classes[group.key], key=lambda name: (spread[name], name))].append(group)
    return [sorted(strata[name], key=lambda group: (group.order, group.key)) for name in sorted(strata)]


def _cut(groups: list[_Group], splits: Sequence[str]) -> dict[tuple[bool, str], str]:
    """Gives each of the splits a tenth of the groups' pictures and at least one group, and the rest to train.

    Args:
      groups: in the order in which they are taken.
      splits: 'test' and 'val', or those of them that are wanted.

    Returns:
      The split by the group's key, of those that are not in train.
    """
    chosen: dict[tuple[bool, str], str] = {}
    target = max(1, round(_SHARE * sum(len(group.positions) for group in groups)))
    for number, split in enumerate(splits):
        left = [group for group in groups if group.key not in chosen]
        spare = len(left) - (len(splits) - number)  # one is for each split that comes later, and one for train
        taken: list[_Group] = []
        count = 0
        for group in left:
            size = len(group.positions)
            if len(taken) < spare and count + size / 2 <= target:
                taken.append(group)
                count += size
        if not taken and spare > 0:  # all are larger than the share
            taken = [min(left, key=lambda group: len(group.positions))]
        chosen.update((group.key, split) for group in taken)
    return chosen


def _check_coverage(files: Sequence[ImageFile], splits: Sequence[str], wanted: Iterable[str]) -> None:
    """Checks that every class is in train, in test, and in each split that was chosen here."""
    found = {(split, file.class_name) for split, file in zip(splits, files, strict=True)}
    for split in sorted({features.TRAIN_SPLIT, features.TEST_SPLIT, *wanted}):
        missing = [name for name in sorted({file.class_name for file in files}) if (split, name) not in found]
        if missing:
            raise DataError(
                f'No picture of {join_names(missing)} is left for {split}, because there are too few, or because '
                '--group-by keeps too many of them together; add pictures, or give the splits yourself.'
            )


def choose_splits(files: Sequence[ImageFile], group_by: re.Pattern[str] | None = None) -> list[str]:
    """Chooses the split of each picture.

    Splits that were given are kept. Of `val` and `test`, one that was not given is taken from the pictures of `train`.

    Args:
      files: the pictures.
      group_by: searched in the name of each picture: those with an equal first group, or match if the expression has no
        group, are never divided. None: each picture is a group of its own.

    Returns:
      The splits, in the order of `files`.

    Raises:
      DataError: given splits divide a group, or a class has no picture in train or in test.
    """
    given = {file.split for file in files if file.split}
    wanted = [split for split in (features.TEST_SPLIT, features.VAL_SPLIT) if split not in given]
    splits = [file.split or features.TRAIN_SPLIT for file in files]
    groups = _make_groups(files, group_by)
    for group in groups:
        found = sorted({splits[position] for position in group.positions})
        if len(found) > 1:
            raise DataError(
                f'The group {group.key[1]!r} of --group-by is in {" and ".join(found)}; move it to one split.'
            )
    free = [group for group in groups if splits[group.positions[0]] == features.TRAIN_SPLIT]
    for stratum in _stratify(free, files):
        chosen = _cut(stratum, wanted)
        for group in stratum:
            for position in group.positions:
                splits[position] = chosen.get(group.key, features.TRAIN_SPLIT)
    _check_coverage(files, splits, wanted)
    return splits


def describe_rule(files: Iterable[ImageFile]) -> dict[str, str]:
    """Says for the manifest how the pictures of each split were chosen."""
    given = {file.split for file in files if file.split}
    taken = f'{_SHARE:.0%} of {"train" if given else "each class"}, by the SHA-256 of the group or path'
    rules = {split: 'given' if split in given else taken for split in features.SPLITS}
    return rules if given else {**rules, features.TRAIN_SPLIT: 'the rest'}
