"""What a batch prediction reads: shards of records or of image files, which are each predicted and written as a whole.

Both are cut into shards of SHARD_IMAGES.
"""

import glob
import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from components import features
from components.errors import UsageError, to_one_line
from components.places import Place, explain_errors, fetch, locate
from components.progress import track
from pipeline.image_sources import IMAGE_SUFFIXES

RECORD_SUFFIXES = ('.gz', '.tfrecord', '.tfrecords')
SHARD_IMAGES = 1000
_GZIP = b'\x1f\x8b'  # how a GZIP file begins (RFC 1952)


class Shard(NamedTuple):
    """A part of the input that is predicted and written as a whole."""

    number: int
    """Its place among the shards, from 0."""
    total: int
    """How many shards there are."""
    root: str
    """Path or URI of the folder that `files` are in."""
    files: tuple[str, ...]
    """Paths below `root`: one file of TFRecords, or up to SHARD_IMAGES image files."""
    start: int = 0
    """In a file of TFRecords, the first record of the shard, from 0."""
    records: int = 0
    """In a file of TFRecords, how many records the shard has."""
    is_last: bool = False
    """Whether it is the last of its file of TFRecords, and ends where the file ends."""

    @property
    def name(self) -> str:
        """How the shard is called in file names: '00003-of-00012'."""
        return f'{self.number:05d}-of-{self.total:05d}'


class Item(NamedTuple):
    """An image to predict, or a record that holds none."""

    id: str
    """The path of an image file below the input; of a record its `id`, or its file and position."""
    source: str
    """The file it comes from, below the input."""
    position: int
    """Its place in that file, from 0."""
    image: bytes
    """The encoded image; empty if there is none."""
    fault: str
    """Why there is no image, in words; '' if there is one."""


class Input(NamedTuple):
    """What is to be predicted."""

    shards: tuple[Shard, ...]
    """At least one."""
    images: int
    """How many images or records there are; fewer than that if a file of TFRecords is damaged."""
    digest: str
    """SHA-256, in lower-case hex, over the name, the size and the time of the last change of every file."""


def _is_record_file(name: str) -> bool:
    return name.lower().endswith(RECORD_SUFFIXES)


def _list_files(text: str) -> tuple[Place, list[str]]:
    """Finds the files that --input names: the folder they are in, and their sorted paths below it."""
    place = locate(text)
    place = place.absolute() if isinstance(place, Path) else place  # a worker's current folder may be another
    with explain_errors(place):
        if place.is_dir():
            files = [file for file in place.rglob('*') if not file.is_dir()]
        elif place.exists():
            place, files = place.parent, [place]
        elif isinstance(place, Path) and glob.has_magic(text):
            files = [Path(name).absolute() for name in glob.glob(text, recursive=True) if os.path.isfile(name)]
            place = Path(os.path.commonpath([file.parent for file in files])) if files else place
        else:
            files = []
        names = sorted(PurePosixPath(str(file)).relative_to(str(place)).as_posix() for file in files)
    return place, [name for name in names if not any(part.startswith('.') for part in name.split('/'))]


def find_input(text: str) -> Input:
    """Finds what is to be predicted, and cuts it into shards.

    Args:
      text: a folder of image files or of TFRecords, with the folders below it; a file of TFRecords; or a glob. A folder
        may be a URI.

    Raises:
      UsageError: there is nothing to predict, or the input mixes images and TFRecords.
      StorageError: the object store cannot be read.
    """
    place, names = _list_files(text)
    records = [name for name in names if _is_record_file(name)]
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not records and not images:
        raise UsageError(
            f'{text} has nothing to predict; --input takes a folder of images ({", ".join(IMAGE_SUFFIXES)}), a folder '
            f'or a glob of TFRecords ({", ".join(RECORD_SUFFIXES)}), or one file of them.'
        )
    if records and images:
        raise UsageError(
            f'{text} has {len(records):,} files of TFRecords and {len(images):,} images; predict them one after the '
            'other, each into an --out of its own.'
        )
    found = _cut_records(place, records) if records else _cut_images(place, images)
    shards = tuple(shard._replace(number=number, total=len(found)) for number, shard in enumerate(found))
    return Input(shards, sum(map(count_items, shards)), _digest_files(place, records or images))


def count_items(shard: Shard) -> int:
    """Counts the images or records of a shard; of a damaged file only those before the damage."""
    return shard.records or len(shard.files)


def _cut_images(place: Place, names: list[str]) -> list[Shard]:
    starts = range(0, len(names), SHARD_IMAGES)
    return [Shard(0, 0, str(place), tuple(names[start : start + SHARD_IMAGES])) for start in starts]


def _cut_records(place: Place, names: list[str]) -> list[Shard]:
    shards = []
    with track('counting records', None, 'records') as advance:
        for name in names:
            count = _count_records(place / name)
            advance(count)
            starts = range(0, max(count, 1), SHARD_IMAGES)
            shards += [Shard(0, 0, str(place), (name,), start, SHARD_IMAGES) for start in starts]
            shards[-1] = shards[-1]._replace(records=count - starts[-1], is_last=True)
    return shards


def _count_records(place: Place) -> int:
    """Counts the records of a file by their lengths; of a damaged file those before the damage, as far as they show.

    A record is its length in 8 bytes, 4 bytes of checksum, the data, and 4 more bytes of checksum (TensorFlow's
    record_writer.h).
    """
    count = 0
    with explain_errors(place), fetch(place) as file, file.open('rb') as raw:
        stream = gzip.GzipFile(fileobj=raw) if _is_gzip(file) else raw
        try:
            while len(head := stream.read(12)) == 12:
                (length,) = struct.unpack('<Q4x', head)
                stream.seek(length + 4, os.SEEK_CUR)
                count += 1
        except (OSError, EOFError, zlib.error, OverflowError):
            pass
    return count


def _is_gzip(file: Path) -> bool:
    with file.open('rb') as stream:
        return stream.read(len(_GZIP)) == _GZIP


def _digest_files(place: Place, names: list[str]) -> str:
    digest = hashlib.sha256()
    with explain_errors(place):
        for name in names:
            status = (place / name).stat()
            digest.update(f'{name}\t{status.st_size}\t{int(status.st_mtime)}\n'.encode())
    return digest.hexdigest()


def read_items(shard: Shard) -> Iterator[Item]:
    """Reads a shard's images one after the other. What cannot be read is an item with a fault.

    Raises:
      StorageError: the object store cannot be read.
    """
    root = locate(shard.root)
    with explain_errors(root):
        for name in shard.files:
            if _is_record_file(name):
                yield from _read_records(root / name, name, shard)
            else:
                yield _read_image(root / name, name)


def _read_image(file: Place, name: str) -> Item:
    try:
        return Item(name, name, 0, file.read_bytes(), '')
    except OSError as error:
        return Item(name, name, 0, b'', f'cannot be read: {error.strerror}')


def _read_records(place: Place, name: str, shard: Shard) -> Iterator[Item]:
    import tensorflow as tf

    position = shard.start
    try:
        with fetch(place) as file:
            dataset = tf.data.TFRecordDataset(str(file), 'GZIP' if _is_gzip(file) else '').skip(shard.start)
            for serialized in dataset.take(-1 if shard.is_last else shard.records).as_numpy_iterator():
                yield _parse_record(serialized, name, position)
                position += 1
    except (OSError, tf.errors.OpError) as error:
        fault = f'this and all that follow in the file cannot be read: {to_one_line(error)[:200]}'
        yield Item(f'{name}#{position}', name, position, b'', fault)


def _parse_record(serialized: bytes, name: str, position: int) -> Item:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    place = f'{name}#{position}'
    try:
        values = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        return Item(place, name, position, b'', 'is not a tf.Example')
    ids = values[features.ID_KEY].bytes_list.value if features.ID_KEY in values else []
    images = values[features.IMAGE_KEY].bytes_list.value if features.IMAGE_KEY in values else []
    item_id = ids[0].decode(errors='replace') if ids else place
    if len(images) != 1 or not images[0]:
        return Item(item_id, name, position, b'', f'has no image in the feature {features.IMAGE_KEY}')
    return Item(item_id, name, position, images[0], '')
