"""Which images a command is asked for: files, folders, globs, and CSV files that name images."""

import csv
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from components.errors import UsageError

IMAGE_SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.webp')
"""The names of what TensorFlow decodes; in a folder, files with other names are passed over."""

CSV_COLUMN = 'image'
"""The column of a CSV file that names the images."""


class Source(NamedTuple):
    """One image that is asked for. Whether the file exists and is an image is not known yet."""

    name: str
    """How the image is called in the output: the path as it was given, or as the CSV file has it."""
    file: Path
    """The file of this machine."""
    row: dict[str, str]
    """The other columns of its row in the CSV file; empty for an image that no CSV file names."""


class Sources(NamedTuple):
    """What is asked for, in the order of the command line; the files of a folder or of a glob are sorted."""

    images: list[Source]
    """At least one. An image that is named twice is in it twice."""
    skipped: list[str]
    """The files of folders that are no images by their names."""
    columns: list[str]
    """The keys of `Source.row` over all images, in the order of the CSV files."""


def _walk_files(folder: Path) -> Iterator[Path]:
    """Yields the files in a folder and below it, sorted, without those that are hidden: systems put them there."""
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        yield from (Path(path, name) for name in sorted(names) if not name.startswith('.'))


def _list_folder(folder: Path) -> tuple[list[Source], list[str]]:
    """Returns the images of a folder, and the files that are not images."""
    images, skipped = [], []
    for file in _walk_files(folder):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            images.append(Source(str(file), file, {}))
        else:
            skipped.append(str(file))
    if not images:
        raise UsageError(f'{folder} holds no image; the files of a folder that end in {_SUFFIXES} are taken.')
    return images, skipped


_SUFFIXES = f'{", ".join(IMAGE_SUFFIXES[:-1])} or {IMAGE_SUFFIXES[-1]}'


def _check_path(text: str, where: str) -> str:
    """Checks that a text names a file of this machine.

    Raises:
      UsageError: It is empty, or a URL.
    """
    if not text:
        raise UsageError(f'{where} names no image.')
    if '://' in text:
        raise UsageError(f'{where} is the URL {text}; images are read from this machine only: download it first.')
    return text


def _read_csv(path: Path) -> tuple[list[Source], list[str]]:
    """Returns the images that a CSV file names, and its other columns. Paths in it start from its own folder."""
    try:
        with path.open(newline='', encoding='utf-8-sig') as stream:
            reader = csv.DictReader(stream, restkey='', restval='', strict=True)
            columns = list(reader.fieldnames or ())
            if CSV_COLUMN not in columns or len(set(columns)) < len(columns):
                found = ', '.join(columns) or 'none'
                raise UsageError(f'{path} needs the column {CSV_COLUMN}, and no column twice. Its columns: {found}.')
            images = [_read_row(path, reader.line_num, row) for row in reader]
    except OSError as error:
        raise UsageError(f'{path} cannot be read: {error.strerror}.') from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f'{path} is not a CSV file in UTF-8: {error}.') from error
    if not images:
        raise UsageError(f'{path} names no image: it has a header and no row.')
    return images, [column for column in columns if column != CSV_COLUMN]


def _read_row(path: Path, line: int, row: dict[str, str]) -> Source:
    where = f'Line {line} of {path}'
    if '' in row:  # more cells than columns, for example because a comma is not quoted
        raise UsageError(f'{where} has more cells than the header has columns; put a cell with a comma in quotes.')
    name = _check_path(row.pop(CSV_COLUMN), where)
    return Source(name, path.parent / name, row)


def find_sources(arguments: list[str]) -> Sources:
    """Finds the images that a command line names.

    Args:
      arguments: files; folders, of which all images are taken, also those of the folders in them; globs, where `**`
        stands for any folders; and files that end in .csv, with a column `image`.

    Raises:
      UsageError: A URL, a glob that matches nothing, a folder without an image, or a CSV file that is wrong.
    """
    images: list[Source] = []
    skipped: list[str] = []
    columns: dict[str, None] = {}
    for text in arguments:
        _check_path(text, 'IMAGE')
        paths = [text]
        is_glob = not os.path.lexists(text) and glob.has_magic(text)
        if is_glob:
            paths = sorted(glob.glob(text, recursive=True))
            if '**' in text:  # which has matched the files of the folders too
                paths = [path for path in paths if not os.path.isdir(path)]
            if not paths:
                raise UsageError(f'{text} matches no file.')
        for path in map(Path, paths):
            if path.is_dir():
                found, passed_over = _list_folder(path)
                images += found
                skipped += passed_over
            elif path.suffix.lower() == '.csv':
                found, names = _read_csv(path)
                images += found
                columns.update(dict.fromkeys(names))
            else:
                images.append(Source(str(path), path, {}))
    return Sources(images, skipped, list(columns))
