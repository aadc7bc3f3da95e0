"""`data --images`: from a folder of pictures to records, and what each bad folder is told."""

import csv
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from components.data import cifar10
from components.errors import DataError, UsageError
from pipeline.__main__ import main
from pipeline.data_images import write_from_images
from tests.components.data.images.pictures import declare_png, draw, encode, write_folder
from tests.conftest import PROJECT


def read_records(data: Path) -> dict[str, list[tuple[str, int, bytes]]]:
    """Reads id, label and image of every record, by split."""
    import tensorflow as tf

    records = {}
    for split in ('train', 'val', 'test'):
        files = sorted(map(str, (data / split).iterdir()))
        examples = map(tf.train.Example.FromString, tf.data.TFRecordDataset(files, 'GZIP').as_numpy_iterator())
        records[split] = [
            (
                example.features.feature['id'].bytes_list.value[0].decode(),
                example.features.feature['label'].int64_list.value[0],
                example.features.feature['image'].bytes_list.value[0],
            )
            for example in examples
        ]
    return records


def read_manifest(data: Path) -> dict:
    return json.loads((data / 'manifest.json').read_text())


def read_files(data: Path) -> dict[str, dict[str, str]]:
    with (data / 'files.csv').open(encoding='utf-8', newline='') as file:
        return {row['image']: row for row in csv.DictReader(file)}


@pytest.fixture(scope='module')
def mixed(tmp_path_factory) -> Path:
    """A folder of 63 pictures of mixed kinds in three classes, with some of what else lies in such folders."""
    folder = write_folder(tmp_path_factory.mktemp('mixed') / 'photos', ('猫', 'cow', 'dog'), count=20)
    (folder / 'cow' / '000.jpg').write_bytes(encode(draw(7000, (300, 400)), 'PNG'))
    (folder / 'cow' / 'a copy.jpg').write_bytes((folder / 'cow' / '001.jpg').read_bytes())
    (folder / 'dog' / 'notes.txt').write_text('rex')
    return folder


@pytest.fixture(scope='module')
def written(mixed) -> Path:
    out = mixed.parent / 'data'
    write_from_images(mixed, out, size=40)
    return out


def test_the_manifest_says_what_the_data_is(written):
    manifest = read_manifest(written)
    assert manifest['source']['kind'] == 'images'
    assert manifest['source']['name'] == 'photos'
    assert manifest['contract'] == {'class_names': ['cow', 'dog', '猫'], 'image_size': 40, 'is_square': False}
    assert manifest['counts'] == {'train': 48, 'val': 6, 'test': 6}
    assert manifest['counts_by_class']['val'] == {'cow': 2, 'dog': 2, '猫': 2}
    assert manifest['images'] == {'size': 40, 'group_by': None}
    assert {path.name for path in written.iterdir()} == {'train', 'val', 'test', 'manifest.json', 'files.csv'}


def test_every_file_is_in_the_report(written):
    files = read_files(written)
    assert len(files) == 62
    assert files['cow/000.jpg'] == {
        **files['cow/000.jpg'],
        **{'class': 'cow', 'width': '300', 'height': '400', 'stored_width': '40', 'stored_height': '53'},
        **{'outcome': 'converted', 'reason': '300x400 to 40x53, PNG to JPEG'},
    }
    assert files['dog/notes.txt']['reason'] == 'not an image file'
    assert files['cow/001.jpg']['outcome'] == 'stored'
    assert files['cow/a copy.jpg']['outcome'] == 'skipped'
    assert files['cow/a copy.jpg']['reason'] == 'duplicate: the same picture as cow/001.jpg'
    assert Counter(row['split'] for row in files.values()) == {'train': 48, 'val': 6, 'test': 6, '': 2}


def test_a_record_holds_the_bytes_of_its_picture_and_classes_are_mixed(written, mixed):
    records = read_records(written)
    for split in records.values():
        for name, label, image in split:
            assert name.startswith(('cow', 'dog', '猫')[label])
            assert name == 'cow/000.jpg' or image == (mixed / name).read_bytes()
    labels = [label for _, label, _ in records['train']]
    assert sum(first != second for first, second in itertools.pairwise(labels)) > 20


def test_the_same_command_again_does_nothing_and_another_is_refused(written, mixed):
    before = (written / 'manifest.json').stat().st_mtime_ns
    note = write_from_images(mixed, written, size=40)
    assert note == f'48 train, 6 val, 6 test already in {written}: nothing to do'
    assert (written / 'manifest.json').stat().st_mtime_ns == before
    with pytest.raises(UsageError, match='already holds different data'):
        write_from_images(mixed, written, size=41)
    with pytest.raises(UsageError, match='already holds different data'):
        write_from_images(mixed, written, size=40, group_by='cow')


def test_a_csv_and_split_folders_give_the_records_of_the_folder(written, mixed, tmp_path):
    lines = [f'{file.relative_to(mixed)},{file.parent.name}' for file in mixed.glob('*/*.jpg')]
    (tmp_path / 'labels.csv').write_text('\n'.join(['image,label', *lines]), encoding='utf-8')
    arguments = ['--images', mixed, '--csv', tmp_path / 'labels.csv', '--size', 40, '--out', tmp_path / 'from_csv']
    assert main(['data', *map(str, arguments)]) == 0
    expected = read_records(written)
    assert read_records(tmp_path / 'from_csv') == expected
    assert read_manifest(tmp_path / 'from_csv')['source']['kind'] == 'csv'

    for split, records in expected.items():
        for name, _, _ in records:
            target = tmp_path / 'split' / split / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(mixed / name, target)
    write_from_images(tmp_path / 'split', tmp_path / 'from_split', size=40)
    found = read_records(tmp_path / 'from_split')
    for split, records in expected.items():
        assert sorted((f'{split}/{name}', *rest) for name, *rest in records) == sorted(found[split])


def test_cifar10_as_pictures_has_the_same_records_as_from_its_archive(sample_data, tmp_path):
    """Also where class names and sizes are not given: they are those of CIFAR-10."""
    expected = read_records(sample_data)
    for split, records in expected.items():
        for name, label, image in records:
            file = tmp_path / 'pictures' / split / cifar10.CONTRACT.class_names[label] / f'{name}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image)
    write_from_images(tmp_path / 'pictures', tmp_path / 'd')
    assert read_manifest(tmp_path / 'd')['contract'] == cifar10.CONTRACT.to_dict()
    found = read_records(tmp_path / 'd')
    for split, records in expected.items():
        assert sorted((Path(name).stem, *rest) for name, *rest in found[split]) == sorted(records)


def test_less_than_a_hundredth_of_unreadable_pictures_is_told_and_no_more(tmp_path, capfd):
    folder = write_folder(tmp_path / 'photos', ('cat', 'dog'), count=60)
    (folder / 'cat' / 'bomb.png').write_bytes(declare_png(50_000, 50_000))
    assert main(['data', '--images', str(folder), '--size', '40', '--out', str(tmp_path / 'd')]) == 0
    lines = capfd.readouterr().out
    assert re.search(r'96 train, 12 val, 12 test written to .*/d: 2 classes \(cat, dog\) at 40 pixels\n', lines)
    assert 'cat: 48 train, 6 val, 6 test\n' in lines
    assert '120 stored as they are\n' in lines
    assert '1 refused (1 too many pixels)\n' in lines
    assert read_files(tmp_path / 'd')['cat/bomb.png']['outcome'] == 'refused'
    (folder / 'dog' / 'torn.jpg').write_bytes(b'\xff\xd8\xff\xe0')
    assert main(['data', '--images', str(folder), '--size', '40', '--out', str(tmp_path / 'e')]) == 1
    error = capfd.readouterr().err
    assert error.startswith('error: 2 of 122 pictures cannot be used, more than 1%; mend or remove them. ')
    assert '\n    dog/torn.jpg: ' in error or '\ndog/torn.jpg: ' in error
    assert {path.name for path in tmp_path.iterdir()} == {'photos', 'd', 'e.files.csv'}
    (folder / 'dog' / 'torn.jpg').unlink()
    write_from_images(folder, tmp_path / 'e', size=40)
    assert not (tmp_path / 'e.files.csv').exists()


def make_bad_folder(name: str, folder: Path) -> list[str]:
    """Makes the folder, and returns the arguments beside --images."""
    match name:
        case 'missing folder':
            return []
        case 'a file':
            folder.write_text('x')
            return []
        case 'empty folder':
            folder.mkdir()
            return []
        case 'no class folders':
            folder.mkdir()
            draw(0).save(folder / 'a.jpg')
            return []
        case 'train without classes':
            (folder / 'train').mkdir(parents=True)
            draw(0).save(folder / 'train' / 'a.jpg')
            return []
        case 'one class':
            write_folder(folder, ('cat',))
            return []
        case 'a class that test has alone':
            write_folder(folder / 'train', ('cat', 'dog'))
            write_folder(folder / 'test', ('cat', 'dog', 'emu'))
            return []
    write_folder(folder, ('cat', 'dog'))
    match name:
        case 'too few pictures':
            write_folder(folder / 'x', ('emu',), count=2)
            (folder / 'x' / 'emu').rename(folder / 'emu')
            (folder / 'x').rmdir()
        case 'an empty class':
            (folder / 'emu').mkdir()
        case 'unreadable':
            (folder / 'cat' / 'torn.jpg').write_bytes(b'x')
        case 'two labels':
            Image.open(folder / 'cat' / '000.jpg').save(folder / 'dog' / 'copy.png')
        case 'no column':
            (folder / 'l.csv').write_text('file,label\n')
            return ['--csv', str(folder / 'l.csv')]
        case 'a missing file':
            (folder / 'l.csv').write_text('image,label\ncat/99.jpg,cat\n')
            return ['--csv', str(folder / 'l.csv')]
        case 'a path outside':
            (folder / 'l.csv').write_text('image,label\n../x.jpg,cat\n')
            return ['--csv', str(folder / 'l.csv')]
        case 'out inside':
            return ['--out', str(folder / 'data')]
        case 'out occupied':
            (folder.parent / 'thesis').mkdir()
            (folder.parent / 'thesis' / 'a.tex').write_text('x')
            return ['--out', str(folder.parent / 'thesis')]
    return []


BAD_FOLDERS = {
    'missing folder': (2, r'\S+ does not exist; --images takes a folder'),
    'a file': (2, r'\S+ is not a folder; --images takes a folder'),
    'empty folder': (2, r'\S+ has no folders of classes; --images takes FOLDER/CLASS/picture\.jpg'),
    'no class folders': (2, r'\S+ has no folders of classes; --images takes FOLDER/CLASS/picture\.jpg'),
    'train without classes': (2, r'\S+/train has no folders of classes'),
    'one class': (1, r"\S+ has only the class 'cat'; a classifier needs at least two"),
    'too few pictures': (1, r'\S+ has too few pictures of emu \(2\); a class needs at least 3'),
    'an empty class': (1, r'\S+ has no picture of emu; add pictures'),
    'a class that test has alone': (1, r'\S+ has no picture of emu in train; add pictures'),
    'unreadable': (1, r'1 of 21 pictures cannot be used, more than 1%'),
    'two labels': (1, r'2 of 21 pictures cannot be used, [^\0]*one of its labels must be wrong'),
    'no column': (1, r'\S+ lacks the column image;'),
    'a missing file': (1, r"Line 2 of \S+ names 'cat/99\.jpg', but \S+ has no such file"),
    'a path outside': (1, r"Line 2 of \S+ names '\.\./x\.jpg', which leaves"),
    'out inside': (2, r'--out \S+ is inside \S+, where it would be taken for a class'),
    'out occupied': (2, r'\S+ exists and was not written by this command'),
}


@pytest.mark.parametrize('name', BAD_FOLDERS)
def test_a_bad_folder_ends_in_one_sentence_and_leaves_nothing(name, tmp_path, capfd):
    exit_code, message = BAD_FOLDERS[name]
    folder = tmp_path / 'photos'
    arguments = make_bad_folder(name, folder)
    before = {path.name for path in tmp_path.iterdir()}
    if '--out' not in arguments:
        arguments += ['--out', str(tmp_path / 'd')]
    assert main(['data', '--images', str(folder), *arguments]) == exit_code
    error = capfd.readouterr().err
    assert re.match(f'error: {message}', error), error
    assert 'Traceback' not in error
    assert error.count('error') == 1
    assert {path.name for path in tmp_path.iterdir()} - {'d.files.csv'} == before


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--sample', '--csv', 'l.csv'], '--csv says something about your own pictures; it needs --images.'),
        (['--sample', '--group-by', 'x'], '--group-by says something about your own pictures; it needs --images.'),
        (['--images', 'x', '--limit', '3'], '--limit does not apply to --images'),
        (['--images', 'x', '--size', '7'], '--size takes a number of pixels from 8 to 4,096. Received: 7'),
        (['--images', 'x', '--group-by', '('], "--group-by '(' is not a regular expression"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message, tmp_path, capfd):
    assert main(['data', '--out', str(tmp_path / 'd'), *arguments]) == 2
    assert message in capfd.readouterr().err


def test_bad_pictures_are_refused_before_beam_and_tensorflow_are_imported(tmp_path):
    folder = write_folder(tmp_path / 'photos', ('cat', 'dog'), count=3)
    (folder / 'cat' / 'torn.jpg').write_bytes(b'x')
    code = (
        'import sys\nfrom pipeline.__main__ import main\ncode = main(sys.argv[1:])\n'
        'print(code, [name for name in ("tensorflow", "apache_beam", "tfx") if name in sys.modules])'
    )
    command = [sys.executable, '-c', code, 'data', '--images', str(folder), '--out', str(tmp_path / 'd')]
    answer = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert answer.stdout.splitlines()[-1] == '1 []', answer.stderr


def test_the_frames_of_a_video_stay_in_one_split(tmp_path):
    folder = write_folder(tmp_path / 'photos', ('cat', 'dog'), count=40)
    for file in folder.glob('*/*.jpg'):
        number = int(file.stem)
        file.rename(file.with_name(f'video{number // 4}-frame{number % 4}.jpg'))
    group_by = r'\w+/video\d+'
    arguments = ['--images', folder, '--group-by', group_by, '--size', 40, '--out', tmp_path / 'd']
    assert main(['data', *map(str, arguments)]) == 0
    splits = {}
    for name, row in read_files(tmp_path / 'd').items():
        splits.setdefault(name.partition('-')[0], set()).add(row['split'])
    assert len(splits) == 20
    assert all(len(found) == 1 for found in splits.values())
    assert read_manifest(tmp_path / 'd')['images']['group_by'] == group_by


def test_equal_pictures_in_two_given_splits_stay_in_test(tmp_path):
    folder = tmp_path / 'photos'
    write_folder(folder / 'train', ('cat', 'dog'), count=9)
    write_folder(folder / 'test', ('cat', 'dog'), count=1)
    write_from_images(folder, tmp_path / 'd', size=40)
    assert read_manifest(tmp_path / 'd')['counts'] == {'train': 14, 'val': 2, 'test': 2}
    assert (
        read_files(tmp_path / 'd')['train/cat/000.jpg']['reason'] == 'duplicate: the same picture as test/cat/000.jpg'
    )


def test_a_process_that_is_ended_from_outside_ends_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr('components.data.images.pool._convert_chunk', _die)
    folder = write_folder(tmp_path / 'photos', ('cat', 'dog'), count=3)
    with pytest.raises(DataError, match='was ended from outside'):
        write_from_images(folder, tmp_path / 'd', size=40)
    assert [path.name for path in tmp_path.iterdir()] == ['photos']


def _die(paths, shorter):
    signal.raise_signal(signal.SIGKILL)


def test_an_interrupt_leaves_nothing(tmp_path):
    folder = write_folder(tmp_path / 'photos', ('cat', 'dog'), count=3)
    for number in range(400):  # large ones, so that there is work to interrupt
        (folder / 'cat' / f'{number}.jpg').write_bytes(LARGE + bytes(str(number), 'ascii'))
    command = [sys.executable, '-m', 'pipeline', 'data', '--images', str(folder), '--out', str(tmp_path / 'd')]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size for file in tmp_path.glob('.d.partial-*/pictures')):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - begin < 2.5
    assert process.returncode == 130
    assert error == 'interrupted; run the same command again\n'
    assert [path.name for path in tmp_path.iterdir()] == ['photos']


LARGE = encode(draw(0, (3000, 2000)), 'JPEG')
