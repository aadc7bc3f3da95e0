"""The same listing as of a folder, from a CSV file that says the class of each picture, and perhaps its split.

Called by `pipeline.data_images`.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from components import features
from components.data.images.class_names import make_class_names
from components.data.images.listing import ImageFile, Listing, check_classes, check_folder
from components.errors import DataError, UsageError, to_one_line

_IMAGE, _LABEL, _SPLIT = 'image', 'label', 'split'  # columns


class _Row(NamedTuple):
    """A row: the picture's path and name below the folder, its label, and its split if the file has that column."""

    path: Path
    name: str
    label: str
    split: str | None


def _find_picture(folder: Path, image: str, where: str) -> Path:
    """Returns the path of a picture below the folder.

    Raises:
      DataError: it is missing, or is not below the folder.
    """
    path = Path(os.path.normpath(folder / image))
    is_inside = path.is_relative_to(folder) and path.resolve().is_relative_to(folder.resolve())
    if os.path.isabs(image) or not is_inside:
        raise DataError(f'{where} names {image!r}, which leaves {folder}; give paths relative to that folder.')
    if not path.is_file():
        raise DataError(f'{where} names {image!r}, but {folder} has no such file; give paths relative to that folder.')
    return path


def _read_rows(file: Path, folder: Path) -> Iterator[_Row]:
    """Reads and checks the rows.

    Raises:
      DataError: a column is missing, or a row is wrong; the message names the line.
      OSError, UnicodeDecodeError, csv.Error: the file cannot be read as CSV.
    """
    with file.open(encoding='utf-8-sig', newline='') as lines:
        reader = csv.DictReader(lines, skipinitialspace=True)
        columns = reader.fieldnames or []
        missing = [column for column in (_IMAGE, _LABEL) if column not in columns]
        if missing:
            raise DataError(
                f'{file} lacks the column {" and ".join(missing)}; its first line must be {_IMAGE},{_LABEL} or '
                f'{_IMAGE},{_LABEL},{_SPLIT}. Found: {",".join(columns)}'
            )
        lines_by_name: dict[str, int] = {}
        for row in reader:
            where = f'Line {reader.line_num} of {file}'
            image, label = row[_IMAGE] or '', (row[_LABEL] or '').strip()
            if not image or not label:
                raise DataError(f'{where} has no {_LABEL if image else _IMAGE}; every line needs both.')
            split = (row[_SPLIT] or '').strip() if _SPLIT in columns else None
            if split is not None and split not in features.SPLITS:
                raise DataError(f'{where} has the split {split!r}; it must be {", ".join(features.SPLITS)}.')
            path = _find_picture(folder, image, where)
            name = path.relative_to(folder).as_posix()
            earlier = lines_by_name.setdefault(name, reader.line_num)
            if earlier != reader.line_num:
                raise DataError(f'{where} names {image!r} again, after line {earlier}; keep one of the two lines.')
            yield _Row(path, name, label, split)


def list_csv(file: Path, folder: Path) -> Listing:
    """Lists the pictures that a CSV file names.

    Args:
      file: UTF-8, with a header; the columns are `image`, a path relative to the folder, `label`, the name of the
        class, and optionally `split`.
      folder: where the pictures are.

    Raises:
      UsageError: the file or the folder is missing.
      DataError: the file is not such a CSV, or its classes cannot be learnt.
    """
    check_folder(folder)
    if not file.is_file():
        raise UsageError(f'{file} is not a file; --csv takes a CSV file with the columns {_IMAGE},{_LABEL}[,{_SPLIT}].')
    try:
        rows = list(_read_rows(file, folder))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f'{file} cannot be read as CSV in UTF-8: {to_one_line(error)}.') from error
    class_names = make_class_names((row.label for row in rows), str(file))
    files = (ImageFile(row.path, row.name, class_names[row.label], row.split) for row in rows)
    listing = Listing(tuple(sorted(files, key=lambda file: file.name)), (), tuple(class_names.values()))
    check_classes(listing, str(file))
    return listing
