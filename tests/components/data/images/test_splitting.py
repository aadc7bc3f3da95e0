"""Which pictures go to which split."""

import re
from collections import Counter
from pathlib import Path

import pytest

from components.data.images.listing import ImageFile
from components.data.images.splitting import choose_splits, compile_group_by, describe_rule
from components.errors import DataError, UsageError


def make_files(counts: dict[str, int], split: str | None = None, form: str = '{name}/{number:05d}.jpg'):
    return [
        ImageFile(Path('x'), form.format(name=name, number=number), name, split)
        for name, count in counts.items()
        for number in range(count)
    ]


def count(files, splits) -> dict[str, tuple[int, ...]]:
    counts = Counter((file.class_name, split) for file, split in zip(files, splits, strict=True))
    names = sorted({file.class_name for file in files})
    return {name: tuple(counts[name, split] for split in ('train', 'val', 'test')) for name in names}


def test_each_class_is_split_into_80_10_and_10_percent():
    files = make_files({'cat': 1000, 'cow': 37, 'dog': 3, 'emu': 20})
    assert count(files, choose_splits(files)) == {
        'cat': (800, 100, 100),
        'cow': (29, 4, 4),
        'dog': (1, 1, 1),
        'emu': (16, 2, 2),
    }


STABLE = {'cat/00008.jpg': 'test', 'cat/00009.jpg': 'val', 'dog/00005.jpg': 'val', 'dog/00008.jpg': 'test'}


def test_the_split_is_stable():
    files = make_files({'cat': 10, 'dog': 10})
    chosen = dict(zip((file.name for file in files), choose_splits(files), strict=True))
    assert {name: split for name, split in chosen.items() if split != 'train'} == STABLE
    again = list(reversed(files))
    assert dict(zip((file.name for file in again), choose_splits(again), strict=True)) == chosen


def test_pictures_that_are_added_move_few_of_the_others():
    files = make_files({'cat': 1000, 'dog': 1000})
    more = make_files({'cat': 1100, 'dog': 1000})
    before = dict(zip((file.name for file in files), choose_splits(files), strict=True))
    after = dict(zip((file.name for file in more), choose_splits(more), strict=True))
    assert sum(after[name] != split for name, split in before.items()) <= 20


def test_groups_stay_together_and_every_split_has_every_class():
    files = make_files({'cat': 300, 'dog': 300}, form='{name}/video{number:05d}.jpg')
    group_by = re.compile(r'video(\d{4})')  # ten frames each
    splits = choose_splits(files, group_by)
    by_group: dict[str, set[str]] = {}
    for file, split in zip(files, splits, strict=True):
        by_group.setdefault(file.name.split('video')[1][:4], set()).add(split)
    # A group has frames of both classes here, as a group of people or a place may.
    assert all(len(found) == 1 for found in by_group.values())
    assert count(files, splits) == {'cat': (240, 30, 30), 'dog': (240, 30, 30)}


def test_a_group_that_is_larger_than_a_share_does_not_take_a_split_away():
    names = ['big'] * 50 + ['a', 'b', 'c', 'd']
    files = [ImageFile(Path('x'), f'{name}-{n}.jpg', 'cat', None) for n, name in enumerate(names)]
    splits = choose_splits(files, re.compile(r'^\w+'))
    assert count(files, splits)['cat'][0] >= 50


def test_a_path_without_a_match_is_a_group_of_its_own():
    files = make_files({'cat': 100})
    assert choose_splits(files, re.compile('video(.)')) == choose_splits(files)


def test_a_rare_class_is_in_every_split_although_its_groups_have_other_classes_too():
    files = [
        ImageFile(Path('x'), f'g{group:03d}-{n}.jpg', 'rare' if group < 3 and n == 0 else 'common', None)
        for group in range(100)
        for n in range(5)
    ]
    assert count(files, choose_splits(files, re.compile(r'g(\d+)')))['rare'] == (1, 1, 1)


def test_too_few_groups_for_three_splits_are_refused():
    files = make_files({'cat': 300, 'dog': 20}, form='{name}/{number:05d}.jpg')
    with pytest.raises(DataError, match='No picture of dog is left for'):
        choose_splits(files, re.compile(r'dog/'))


def test_splits_that_were_given_are_kept_and_missing_ones_are_taken_from_train():
    files = make_files({'cat': 100, 'dog': 50}, 'train') + make_files({'cat': 7, 'dog': 7}, 'test', 't/{name}/{number}')
    splits = choose_splits(files)
    assert count(files, splits) == {'cat': (90, 10, 7), 'dog': (45, 5, 7)}
    assert splits[-14:] == ['test'] * 14
    assert describe_rule(files) == {
        'train': 'given',
        'val': '10% of train, by the SHA-256 of the group or path',
        'test': 'given',
    }


def test_a_group_that_is_divided_by_the_given_splits_is_refused():
    files = make_files({'cat': 2, 'dog': 2}, 'train', 'video1/{name}{number}') + make_files(
        {'cat': 2, 'dog': 2}, 'test', 'video1/t{name}{number}'
    )
    with pytest.raises(DataError, match="group 'video1' of --group-by is in test and train"):
        choose_splits(files, re.compile(r'video\d'))


def test_a_class_that_the_given_test_lacks_is_refused():
    files = make_files({'cat': 20, 'dog': 20}, 'train') + make_files({'cat': 2}, 'test', 't/{name}/{number}')
    with pytest.raises(DataError, match='No picture of dog is left for test'):
        choose_splits(files)


def test_a_wrong_expression_is_refused():
    with pytest.raises(UsageError, match=r"--group-by '\(' is not a regular expression"):
        compile_group_by('(')
