"""What is found in a folder of pictures, and what is passed over."""

import os

import pytest

from components.data.images.listing import Skipped, list_folder
from components.errors import DataError, UsageError
from tests.components.data.images.pictures import write_folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / 'photos', count=3)


def test_each_folder_is_a_class_and_its_subfolders_belong_to_it(folder):
    (folder / 'cat' / 'at' / 'home').mkdir(parents=True)
    (folder / 'cat' / '000.jpg').rename(folder / 'cat' / 'at' / 'home' / 'A.JPEG')
    listing = list_folder(folder)
    assert listing.class_names == ('cat', 'cow', 'dog')
    assert [(file.name, file.class_name, file.split) for file in listing.files[:4]] == [
        ('cat/001.jpg', 'cat', None),
        ('cat/002.jpg', 'cat', None),
        ('cat/at/home/A.JPEG', 'cat', None),
        ('cow/000.jpg', 'cow', None),
    ]
    assert listing.skipped == ()


def test_folders_called_train_val_and_test_are_splits(tmp_path):
    for split in ('train', 'test'):
        write_folder(tmp_path / split, ('cat', 'dog'), count=1)
    listing = list_folder(tmp_path)
    assert listing.class_names == ('cat', 'dog')
    assert [(file.name, file.split) for file in listing.files] == [
        ('test/cat/000.jpg', 'test'),
        ('test/dog/000.jpg', 'test'),
        ('train/cat/000.jpg', 'train'),
        ('train/dog/000.jpg', 'train'),
    ]


def test_what_systems_leave_behind_is_ignored_and_other_files_are_listed(folder):
    for name in ('.DS_Store', 'cat/Thumbs.db', 'cat/.hidden.jpg', 'cat/notes.txt', 'readme.md', 'stray.jpg'):
        (folder / name).write_bytes(b'x')
    (folder / '__MACOSX').mkdir()
    os.mkfifo(folder / 'cow' / 'pipe.jpg')
    listing = list_folder(folder)
    assert len(listing.files) == 9
    assert sorted(listing.skipped) == [
        Skipped('cat/notes.txt', 'not an image file'),
        Skipped('cow/pipe.jpg', 'not a regular file'),
        Skipped('readme.md', 'not in the folder of a class'),
        Skipped('stray.jpg', 'not in the folder of a class'),
    ]


def test_links_that_leave_the_folder_are_not_followed(folder, tmp_path):
    outside = write_folder(tmp_path / 'outside', ('secret',), count=1) / 'secret'
    (folder / 'cat' / 'file.jpg').symlink_to(outside / '000.jpg')
    (folder / 'cat' / 'folder').symlink_to(outside)
    (folder / 'secret').symlink_to(outside)
    (folder / 'cat' / 'up').symlink_to('..')
    (folder / 'cat' / 'circle.jpg').symlink_to('circle.jpg')
    (folder / 'cat' / 'inside.jpg').symlink_to('../cow/000.jpg')
    listing = list_folder(folder)
    assert sorted(listing.skipped) == [
        Skipped('cat/circle.jpg', 'a link to nothing'),
        Skipped('cat/file.jpg', 'a link that leaves the folder'),
        Skipped('cat/folder', 'a link that leaves the folder'),
        Skipped('cat/up', 'a link to a folder'),
        Skipped('secret', 'a link that leaves the folder'),
    ]
    assert 'cat/inside.jpg' in [file.name for file in listing.files]
    assert len(listing.files) == 10


def test_the_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / 'link').symlink_to(folder)
    assert len(list_folder(tmp_path / 'link').files) == 9


def test_a_file_whose_name_is_not_utf8_is_listed(folder):
    (folder / 'cat' / os.fsdecode(b'caf\xe9.jpg')).write_bytes(b'x')
    assert list_folder(folder).skipped == (Skipped('cat/caf\\udce9.jpg', 'its name is not UTF-8'),)


def test_class_names_may_be_in_any_script_and_are_put_into_one_form(tmp_path):
    write_folder(tmp_path, ('cafe\u0301', '猫', 'собака'), count=3)
    assert list_folder(tmp_path).class_names == ('caf\u00e9', 'собака', '猫')


@pytest.mark.parametrize('names', [('Cat', 'cat'), ('cafe\u0301', 'caf\u00e9'), ('STRASSE', 'straße')])
def test_classes_that_differ_only_in_case_or_form_are_refused(names, tmp_path):
    write_folder(tmp_path, names, count=3)
    with pytest.raises(DataError, match='differ only in upper and lower case or in how an accent is written'):
        list_folder(tmp_path)


@pytest.mark.parametrize('name', ['a\nb', 'a\u2028b', os.fsdecode(b'\xe9')])
def test_a_class_name_that_is_not_a_line_of_text_is_refused(name, tmp_path):
    write_folder(tmp_path, (name, 'b'), count=3)
    with pytest.raises(DataError, match='the name of a class is one line of UTF-8 text'):
        list_folder(tmp_path)


def test_a_class_called_train_is_told_how_to_be_one(tmp_path):
    write_folder(tmp_path, ('bus', 'car', 'train'), count=3)
    with pytest.raises(UsageError, match=r'also bus, car; .* If train is a class, give the labels with --csv'):
        list_folder(tmp_path)
