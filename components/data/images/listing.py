"""What there is to read: the image files of a folder of classes, each with its class and, where it has one, its split.

Called by `pipeline.data_images`. `components.data.images.labels_csv` makes the same listing from a CSV file.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from components import features
from components.data.images.class_names import is_utf8, join_names, make_class_names
from components.errors import DataError, UsageError, to_one_line

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.gif', '.webp')
_IGNORED = ('Thumbs.db', 'desktop.ini', '__MACOSX')  # beside hidden files: what systems leave in folders of pictures
_LEAST_FILES = 3  # of a class, one for each split


class ImageFile(NamedTuple):
    """A file that is to become a record."""

    path: Path
    """The file."""
    name: str
    """Its path below the folder, with /; it is the record's id, since it is unique and finds the picture again."""
    class_name: str
    """Its class, in Unicode's form NFC."""
    split: str | None
    """'train', 'val' or 'test' if the person has said so, else None."""


class Skipped(NamedTuple):
    """A file or link that is not read, and why. name: its path below the folder."""

    name: str
    reason: str


class Listing(NamedTuple):
    """Everything that was found. files and skipped are sorted by name, and class_names gives a label its class."""

    files: tuple[ImageFile, ...]
    skipped: tuple[Skipped, ...]
    class_names: tuple[str, ...]


def _is_ignored(name: str) -> bool:
    return name.startswith('.') or name in _IGNORED


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what is in a folder, sorted by name, without what is ignored.

    Raises:
      DataError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not _is_ignored(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f'{folder} cannot be read: {to_one_line(error)}.') from error


class _Walk:
    """Goes through a folder, and remembers what it has skipped."""

    def __init__(self, root: Path):
        self._root = root
        self._real_root = root.resolve()
        self.skipped: list[Skipped] = []

    def name(self, path: str | Path) -> str:
        return Path(path).relative_to(self._root).as_posix()

    def skip(self, entry: os.DirEntry[str], reason: str) -> None:
        name = self.name(entry.path).encode(errors='backslashreplace').decode()
        self.skipped.append(Skipped(name, reason))

    def follows(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry may be read: of links only those to a file in the folder; the others are skipped."""
        if not entry.is_symlink():
            return True
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: links in a circle
            self.skip(entry, 'a link to nothing')
            return False
        if not target.is_relative_to(self._real_root):
            self.skip(entry, 'a link that leaves the folder')
        elif target.is_dir():
            self.skip(entry, 'a link to a folder')
        else:
            return True
        return False

    def list_folders(self, folder: Path) -> list[os.DirEntry[str]]:
        """Returns the folders in a folder, and skips everything else there."""
        folders = []
        for entry in _scan(folder):
            if not self.follows(entry):
                continue
            if entry.is_dir():
                folders.append(entry)
            else:
                self.skip(entry, 'not in the folder of a class')
        return folders

    def find_images(self, folder: str) -> Iterator[Path]:
        """Yields the image files of a class, also those in its subfolders."""
        for entry in _scan(Path(folder)):
            if not self.follows(entry):
                continue
            if entry.is_dir():
                yield from self.find_images(entry.path)
            elif not entry.is_file():
                self.skip(entry, 'not a regular file')
            elif not entry.name.lower().endswith(SUFFIXES):
                self.skip(entry, 'not an image file')
            elif not is_utf8(entry.name) or not is_utf8(entry.path):
                self.skip(entry, 'its name is not UTF-8')
            else:
                yield Path(entry.path)


def check_folder(folder: Path) -> None:
    """Checks that a folder of pictures is there.

    Raises:
      UsageError: it is missing, or is not a folder.
    """
    if not folder.is_dir():
        problem = 'is not a folder' if folder.exists() else 'does not exist'
        raise UsageError(f'{folder} {problem}; --images takes a folder with one folder of pictures for each class.')


def _find_split_folders(walk: _Walk, folder: Path) -> dict[str | None, list[os.DirEntry[str]]]:
    """Returns the folders of classes by split; under None where the folder is not divided into splits.

    Raises:
      UsageError: the folder's layout is none of the two.
    """
    children = walk.list_folders(folder)
    names = [entry.name for entry in children]
    if features.TRAIN_SPLIT not in names:
        if children:
            return {None: children}
        raise UsageError(
            f'{folder} has no folders of classes; --images takes FOLDER/CLASS/picture.jpg, '
            f'or FOLDER/{{{",".join(features.SPLITS)}}}/CLASS/picture.jpg.'
        )
    others = [name for name in names if name not in features.SPLITS]
    if others:
        raise UsageError(
            f'{folder} has {features.TRAIN_SPLIT}/, so that its folders are splits, but also {join_names(others)}; '
            f'beside {features.TRAIN_SPLIT}/ only val/ and test/ may be there. If {features.TRAIN_SPLIT} is a class, '
            'give the labels with --csv.'
        )
    classes: dict[str | None, list[os.DirEntry[str]]] = {
        entry.name: walk.list_folders(Path(entry.path)) for entry in children
    }
    if not classes[features.TRAIN_SPLIT]:
        raise UsageError(f'{folder / features.TRAIN_SPLIT} has no folders of classes; it takes CLASS/picture.jpg.')
    return classes


def list_folder(folder: Path) -> Listing:
    """Lists the pictures in FOLDER/CLASS/, or in FOLDER/{train,val,test}/CLASS/ where FOLDER has a folder `train`.

    Hidden files and what systems leave behind (Thumbs.db, __MACOSX) are ignored.

    Raises:
      UsageError: the folder is missing, or has neither layout.
      DataError: its classes cannot be learnt; see `make_class_names` and `check_classes`.
    """
    check_folder(folder)
    walk = _Walk(folder)
    by_split = _find_split_folders(walk, folder)
    class_names = make_class_names((entry.name for entries in by_split.values() for entry in entries), str(folder))
    files = [
        ImageFile(path, walk.name(path), class_names[entry.name], split)
        for split, entries in by_split.items()
        for entry in entries
        for path in walk.find_images(entry.path)
    ]
    listing = Listing(
        tuple(sorted(files, key=lambda file: file.name)), tuple(walk.skipped), tuple(class_names.values())
    )
    check_classes(listing, str(folder))
    return listing


def check_classes(listing: Listing, where: str) -> None:
    """Checks that there are pictures of every class to train on, and enough of them.

    Raises:
      DataError: a class has no picture in train, or too few for three splits.
    """
    counts = dict.fromkeys(listing.class_names, 0)
    for file in listing.files:
        counts[file.class_name] += file.split in (None, features.TRAIN_SPLIT)
    is_split = any(file.split for file in listing.files)
    empty = [name for name, count in counts.items() if not count]
    if empty:
        there = f' in {features.TRAIN_SPLIT}' if is_split else ''
        raise DataError(
            f'{where} has no picture of {join_names(empty)}{there}; add pictures ({", ".join(SUFFIXES)}) or remove it.'
        )
    few = [f'{name} ({count})' for name, count in counts.items() if count < _LEAST_FILES]
    if few and not is_split:
        raise DataError(
            f'{where} has too few pictures of {join_names(few)}; a class needs at least {_LEAST_FILES}, one for each '
            f'of {", ".join(features.SPLITS)}, and many more to be learnt.'
        )
