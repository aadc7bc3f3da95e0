"""The listing from a CSV file, and the lines that are refused."""

import pytest

from components.data.images.labels_csv import list_csv
from components.data.images.listing import list_folder
from components.errors import DataError, UsageError
from tests.components.data.images.pictures import write_folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / 'photos', ('cat', 'dog'), count=3)


def write_csv(folder, lines: list[str], encoding: str = 'utf-8'):
    file = folder.parent / 'labels.csv'
    file.write_bytes('\r\n'.join([*lines, '']).encode(encoding))
    return file


LINES = [f'{name}/{number:03d}.jpg,{name}' for name in ('dog', 'cat') for number in range(3)]


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_the_csv_of_a_folder_gives_the_listing_of_the_folder(encoding, folder):
    assert list_csv(write_csv(folder, ['image,label', *LINES], encoding), folder) == list_folder(folder)


def test_labels_and_splits_need_not_be_folders_and_columns_may_be_in_any_order(folder):
    lines = [
        f'{split},{name}/./{number:03d}.jpg,"a, {name}"'
        for name in ('cat', 'dog')
        for number, split in enumerate(('train', 'val', 'test'))
    ]
    listing = list_csv(write_csv(folder, ['split,image,label', *lines]), folder)
    assert listing.class_names == ('a, cat', 'a, dog')
    assert [(file.name, file.split) for file in listing.files[:3]] == [
        ('cat/000.jpg', 'train'),
        ('cat/001.jpg', 'val'),
        ('cat/002.jpg', 'test'),
    ]


WRONG = {
    'no header': (LINES, r'lacks the column image and label; .* Found: dog/000\.jpg,dog'),
    'another separator': (['image;label'], r'lacks the column image and label; .* Found: image;label'),
    'one column': (['image'], r'lacks the column label'),
    'nothing': ([], r'lacks the column image and label'),
    'missing': (
        ['image,label', *LINES, 'cat/gone.jpg,cat'],
        r"Line 8 of .* names 'cat/gone.jpg', but .* has no such file",
    ),
    'outside': (['image,label', '../labels.csv,cat'], r"Line 2 of .* names '\.\./labels\.csv', which leaves"),
    'absolute': (['image,label', '/etc/passwd,cat'], r"Line 2 of .* names '/etc/passwd', which leaves"),
    'a link': (['image,label', 'cat/link.jpg,cat'], r"Line 2 of .* names 'cat/link\.jpg', which leaves"),
    'no label': (['image,label', 'cat/000.jpg, '], r'Line 2 of .* has no label'),
    'short line': (['image,label', 'cat/000.jpg'], r'Line 2 of .* has no label'),
    'no image': (['image,label', ',cat'], r'Line 2 of .* has no image'),
    'split': (['image,label,split', 'cat/000.jpg,cat,dev'], r"Line 2 of .* has the split 'dev'; it must be train, val"),
    'no split': (['image,label,split', 'cat/000.jpg,cat,'], r"Line 2 of .* has the split ''"),
    'twice': (['image,label', *LINES, 'cat/../cat/000.jpg,dog'], r'Line 8 of .* again, after line 5'),
}


@pytest.mark.parametrize('name', WRONG)
def test_a_line_that_is_wrong_is_named(name, folder):
    lines, message = WRONG[name]
    (folder / 'cat' / 'link.jpg').symlink_to('/etc/passwd')
    with pytest.raises(DataError, match=message):
        list_csv(write_csv(folder, lines), folder)


def test_a_file_that_is_not_utf8_or_not_there_is_refused(folder):
    with pytest.raises(DataError, match='cannot be read as CSV in UTF-8'):
        list_csv(write_csv(folder, ['image,label', 'cat/000.jpg,é'], 'latin-1'), folder)
    with pytest.raises(UsageError, match='is not a file'):
        list_csv(folder / 'labels.csv', folder)
