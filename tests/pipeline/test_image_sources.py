"""Which images the words of a command line stand for."""

from pathlib import Path

import pytest

from components.errors import UsageError
from pipeline.image_sources import find_sources


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    """A working folder with a folder of photos."""
    monkeypatch.chdir(tmp_path)
    for name in ('photos/b.PNG', 'photos/a.jpg', 'photos/sub/c.gif', 'photos/notes.txt', 'photos/.hidden.png', 'd.png'):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).touch()
    return Path('photos')


def list_names(*arguments: str) -> list[str]:
    return [source.name for source in find_sources(list(arguments)).images]


def test_files_are_taken_as_they_are_given_even_twice_or_where_they_do_not_exist():
    assert list_names('d.png', 'missing.png', 'd.png', 'photos/notes.txt') == [
        *('d.png', 'missing.png', 'd.png', 'photos/notes.txt'),
    ]


def test_a_folder_stands_for_all_images_below_it_and_the_other_files_are_named():
    sources = find_sources(['photos'])
    assert [source.name for source in sources.images] == ['photos/a.jpg', 'photos/b.PNG', 'photos/sub/c.gif']
    assert sources.skipped == ['photos/notes.txt']


@pytest.mark.parametrize(
    ('pattern', 'names'),
    [
        ('photos/*.jpg', ['photos/a.jpg']),
        ('photos/**/*.[Pg]*', ['photos/b.PNG', 'photos/sub/c.gif']),
        ('*', ['d.png', 'photos/a.jpg', 'photos/b.PNG', 'photos/sub/c.gif']),
    ],
)
def test_a_glob_stands_for_what_a_shell_would_make_of_it(pattern, names):
    assert list_names(pattern) == names


def test_a_file_whose_name_looks_like_a_glob_is_that_file():
    Path('[d].png').touch()
    assert list_names('[d].png') == ['[d].png']


def test_a_csv_file_names_images_from_its_own_folder_and_keeps_its_other_columns():
    Path('photos/list.csv').write_text('\ufeffimage,label,note\nb.PNG,cat,"a, b"\n/tmp/x.png,dog,\n')
    sources = find_sources(['photos/list.csv', 'd.png'])
    assert [(source.name, source.file, source.row) for source in sources.images] == [
        ('b.PNG', Path('photos/b.PNG'), {'label': 'cat', 'note': 'a, b'}),
        ('/tmp/x.png', Path('/tmp/x.png'), {'label': 'dog', 'note': ''}),
        ('d.png', Path('d.png'), {}),
    ]
    assert sources.columns == ['label', 'note']


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('https://example.com/cat.png', r'IMAGE is the URL https://example\.com/cat\.png; .*: download it first\.'),
        ('s3://bucket/cat.png', 'IMAGE is the URL s3://bucket'),
        ('', 'IMAGE names no image'),
        ('*.tiff', r'\*\.tiff matches no file\.'),
        ('empty', r'empty holds no image; the files of a folder that end in \.bmp, .* or \.webp are taken\.'),
        ('missing.csv', r'missing\.csv cannot be read: No such file'),
    ],
)
def test_what_stands_for_no_image_is_refused_by_name(argument, message):
    Path('empty').mkdir()
    with pytest.raises(UsageError, match=message):
        find_sources([argument])


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', r'list\.csv needs the column image, and no column twice\. Its columns: none\.'),
        (b'file,label\na.png,1\n', r'Its columns: file, label\.'),
        (b'image,x,x\na.png,1,2\n', r'Its columns: image, x, x\.'),
        (b'image\n', 'it has a header and no row'),
        (b'image,x\na.png,1\nb.png,1,2\n', r'Line 3 of list\.csv has more cells'),
        (b'image,x\na.png,1\n,2\n', r'Line 3 of list\.csv names no image'),
        (b'image\nhttp://x/y.png\n', r'Line 2 of list\.csv is the URL http://x/y\.png'),
        (b'image\n\xff\xfe\n', r'list\.csv is not a CSV file in UTF-8'),
    ],
)
def test_a_wrong_csv_file_is_one_sentence(content, message):
    Path('list.csv').write_bytes(content)
    with pytest.raises(UsageError, match=message):
        find_sources(['list.csv'])
