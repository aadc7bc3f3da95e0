"""A data folder of one's own pictures: converts them, finds duplicates, chooses splits, and describes it all.

Called by `pipeline.data_images`, which has `components.data.images.records` write the TFRecords in between: that module
imports TensorFlow, which takes seconds, and this one can say without it that the pictures cannot be used.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from components import features
from components.contract import DataContract
from components.data import cifar10
from components.data.images.convert import Converted
from components.data.images.listing import ImageFile, Listing
from components.data.images.pool import convert_files
from components.data.images.reading import has_size
from components.data.images.report import FILES_NAME, Row, describe_refusals, make_files_csv
from components.data.images.splitting import choose_splits, compile_group_by, describe_rule
from components.data.manifest import MANIFEST_NAME, Manifest, Source, describe_request
from components.errors import DataError
from components.progress import track
from components.staging import write_text

DEFAULT_SIZE = 256  # pixels of the shorter side
_MAX_REFUSED = 0.01  # share of the pictures
_PENDING = Converted('refused', 'not read', b'', '', (0, 0), (0, 0), b'')  # until a process has answered
# Of equal pictures in several splits the first is kept here, so that none of test is in a different split too.
_KEPT_FIRST = (features.TEST_SPLIT, features.VAL_SPLIT, features.TRAIN_SPLIT, None)


class Request(NamedTuple):
    """What was asked for, as the manifest keeps it.

    size: length in pixels of the shorter side of every stored picture; None leaves the choice to `choose_size`.
    group_by: see `components.data.images.splitting.choose_splits`.
    """

    size: int | None
    group_by: str | None


class Picture(NamedTuple):
    """A picture that becomes a record: its file, its split, and where its bytes lie in the file of all bytes."""

    file: ImageFile
    split: str
    start: int
    length: int


class Dataset(NamedTuple):
    """What is to be written. bytes_file holds the bytes of all pictures, rows has a row for each file."""

    contract: DataContract
    pictures: list[Picture]
    rows: list[Row]
    bytes_file: Path


def compute_digest(files: Sequence[ImageFile], hashes: Sequence[str]) -> str:
    """Computes the SHA-256 of what the files are: of their names, bytes, classes and given splits; lower-case hex."""
    lines = [
        json.dumps([file.name, sha256, file.class_name, file.split]) for file, sha256 in zip(files, hashes, strict=True)
    ]
    return hashlib.sha256('\n'.join(sorted(lines)).encode()).hexdigest()


def choose_size(files: Sequence[ImageFile]) -> int:
    """Returns the size at which pictures are stored by default: CIFAR-10's if all have exactly that, else 256."""
    kept = cifar10.CONTRACT.image_size
    with track('sizes', len(files)) as advance:
        for file in files:
            if not has_size(file.path, kept):
                return DEFAULT_SIZE
            advance(1)
    return kept


def _mark_duplicates(files: Sequence[ImageFile], converted: Sequence[Converted]) -> list[Converted]:
    """Skips pictures that are there already, and refuses those that are in several classes: a label must be wrong."""
    marked = list(converted)
    positions_by_pixels = defaultdict(list)
    for position, one in enumerate(converted):
        if one.pixels:
            positions_by_pixels[one.pixels].append(position)
    for positions in positions_by_pixels.values():
        positions.sort(key=lambda position: (_KEPT_FIRST.index(files[position].split), files[position].name))
        for position in positions:
            others = [files[other] for other in positions if files[other].class_name != files[position].class_name]
            if others:
                reason = f'one of its labels must be wrong: the same picture is in {others[0].name}'
                marked[position] = marked[position]._replace(outcome='refused', reason=reason)
            elif position != positions[0]:
                reason = f'duplicate: the same picture as {files[positions[0]].name}'
                marked[position] = marked[position]._replace(outcome='skipped', reason=reason)
    return marked


def _check_refused(rows: Sequence[Row], total: int, report: Path) -> None:
    """Checks that few pictures are refused; else writes the report, beside the data folder that is not made.

    Raises:
      DataError: more than 1% of them are.
    """
    refused = [row for row in rows if row.outcome == 'refused']
    if len(refused) > _MAX_REFUSED * total:
        write_text(report, make_files_csv(rows))
        raise DataError(
            f'{len(refused):,} of {total:,} pictures cannot be used, more than {_MAX_REFUSED:.0%}; mend or remove '
            f'them. {report} names all of them. {describe_refusals(refused)}'
        )


def convert_pictures(listing: Listing, request: Request, staging: Path, report: Path) -> Dataset:
    """Converts all pictures, and chooses their splits.

    Args:
      listing: the files.
      request: the size and the groups that were asked for.
      staging: the folder that becomes the data folder.
      report: where the report goes if too many pictures are refused.

    Raises:
      DataError: too many pictures are refused, or the splits cannot be made.
    """
    group_by = compile_group_by(request.group_by) if request.group_by else None
    size = request.size or choose_size(listing.files)
    files, bytes_file = listing.files, staging / 'pictures'
    places, found = [(0, 0)] * len(files), [_PENDING] * len(files)
    with track('pictures', len(files)) as advance, bytes_file.open('wb') as file:
        for position, converted in convert_files([one.path for one in files], size):
            places[position] = file.tell(), len(converted.content)
            file.write(converted.content)
            found[position] = converted._replace(content=b'')
            advance(1)
    found = _mark_duplicates(files, found)
    kept = [position for position, one in enumerate(found) if one.outcome in ('stored', 'converted')]
    rows = [Row.make(one, converted) for one, converted in zip(files, found, strict=True)]
    rows += [Row.make_skipped(one) for one in listing.skipped]
    _check_refused(rows, len(files), report)
    splits = choose_splits([files[position] for position in kept], group_by)
    pictures = []
    for position, split in zip(kept, splits, strict=True):
        pictures.append(Picture(files[position], split, *places[position]))
        rows[position] = rows[position]._replace(split=split)
    is_square = all(found[position].stored_size == (size, size) for position in kept)
    return Dataset(DataContract(listing.class_names, size, is_square), pictures, rows, bytes_file)


def _count(dataset: Dataset) -> dict[str, dict[str, int]]:
    counts = {split: dict.fromkeys(dataset.contract.class_names, 0) for split in features.SPLITS}
    for picture in dataset.pictures:
        counts[picture.split][picture.file.class_name] += 1
    return counts


def write_manifest(dataset: Dataset, source: Source, request: Request, staging: Path) -> Manifest:
    """Writes the report `files.csv` and the manifest into a data folder whose records are written.

    Args:
      dataset: what the records were made of; its file of bytes is removed.
      source: where the pictures come from.
      request: what was asked for.
      staging: the folder.

    Returns:
      The manifest.
    """
    dataset.bytes_file.unlink()
    report = make_files_csv(dataset.rows).encode()
    (staging / FILES_NAME).write_bytes(report)
    by_class = _count(dataset)
    manifest = {
        **describe_request(source, None),
        'images': request._asdict(),
        'contract': dataset.contract.to_dict(),
        'counts': {split: sum(by_class[split].values()) for split in features.SPLITS},
        'counts_by_class': by_class,
        'split_rules': describe_rule([picture.file for picture in dataset.pictures]),
        'files': {'name': FILES_NAME, 'sha256': hashlib.sha256(report).hexdigest()},
    }
    (staging / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + '\n')
    return manifest
