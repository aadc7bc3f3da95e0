"""CIFAR-10's own bytes: read the official binary archive, or write a synthetic one in its layout.

Called by `components.data.tfrecords`. An archive is a gzipped tar with a folder that holds
`data_batch_1.bin` ... `data_batch_5.bin` and `test_batch.bin`; a record in them is 3,073 bytes: the label
(0-9), then the red, the green and the blue plane, row by row
(https://www.cs.toronto.edu/~kriz/cifar.html). Members are read in memory and nothing is ever
extracted or unpickled, so an archive cannot write outside a folder or run code.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from components import features
from components.errors import DataError

_HEIGHT, _WIDTH, _CHANNELS = features.IMAGE_SHAPE
RECORD_BYTES = 1 + _HEIGHT * _WIDTH * _CHANNELS
TRAIN_BATCHES = tuple(f'data_batch_{n}.bin' for n in range(1, 6))
TEST_BATCH = 'test_batch.bin'
BATCHES = (*TRAIN_BATCHES, TEST_BATCH)

# A thousand times the official batch would be somebody's attack on our memory, not CIFAR-10.
MAX_MEMBER_BYTES = 512 * 1024**2

_FOLDER = 'cifar-10-batches-bin'
_OTHER_KINDS = {
    'data_batch_1': 'the Python (pickle) version of CIFAR-10',
    'data_batch_1.mat': 'the Matlab version of CIFAR-10',
    'train.bin': 'CIFAR-100',
    'train': 'the Python (pickle) version of CIFAR-100',
}


class Batch(NamedTuple):
    """One member of the archive, parsed.

    name: the member's file name, such as 'data_batch_1.bin'.
    images: uint8 [N, 32, 32, 3], RGB, 0-255.
    labels: int64 [N], 0-9.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray


def parse_batch(name: str, raw: bytes) -> Batch:
    """Parses the bytes of one batch file.

    Raises:
      DataError: the bytes are no whole number of records, none at all, or a label is over 9; names file and record.
    """
    records, rest = divmod(len(raw), RECORD_BYTES)
    if rest:
        raise DataError(
            f'{name} is truncated: {len(raw):,} bytes are {records:,} whole records of {RECORD_BYTES:,} bytes '
            f'and {rest:,} bytes of record {records:,}; fetch the archive again.'
        )
    if not records:
        raise DataError(f'{name} holds no records; fetch the archive again.')
    rows = np.frombuffer(raw, np.uint8).reshape(records, RECORD_BYTES)
    labels = rows[:, 0].astype(np.int64)
    wrong = np.flatnonzero(labels >= features.NUM_CLASSES)
    if wrong.size:
        raise DataError(
            f'{name} has label {labels[wrong[0]]} in record {wrong[0]:,}, expected 0-{features.NUM_CLASSES - 1} '
            f'({wrong.size:,} of {records:,} records are wrong); the file is damaged or not CIFAR-10.'
        )
    planes = rows[:, 1:].reshape(records, _CHANNELS, _HEIGHT, _WIDTH)
    return Batch(name, np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def serialize_batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    """The inverse of `parse_batch`: uint8 [N, 32, 32, 3] and integers [N] as the bytes of a batch file."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([labels.astype(np.uint8)[:, None], planes], axis=1).tobytes()


def _check_member(member: tarfile.TarInfo, archive: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or '..' in path.parts:
        raise DataError(f'{archive} has a member outside its folder, {member.name!r}; refused as unsafe.')
    if member.issym() or member.islnk():
        raise DataError(f'{archive} has a link, {member.name!r} -> {member.linkname!r}; refused as unsafe.')
    if not (member.isfile() or member.isdir()):
        raise DataError(f'{archive} has a member that is no regular file, {member.name!r}; refused as unsafe.')
    if member.size > MAX_MEMBER_BYTES:
        raise DataError(
            f'{archive} has a member of {member.size:,} bytes, {member.name!r}; '
            f'over {MAX_MEMBER_BYTES:,} bytes are refused.'
        )


def _iterate_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (file name, bytes) of the batch files, checking every member on the way."""
    with tarfile.open(archive, 'r|gz') as tar:
        for member in tar:
            _check_member(member, archive)
            name = PurePosixPath(member.name).name
            if not member.isfile():
                continue
            if name in _OTHER_KINDS:
                raise DataError(
                    f'{archive} is {_OTHER_KINDS[name]} (it has {member.name!r}); '
                    'the binary version is needed: cifar-10-binary.tar.gz.'
                )
            if name in BATCHES:
                yield name, tar.extractfile(member).read()


def read_archive(archive: Path) -> list[Batch]:
    """Reads all six batches of an archive in the official layout, in the official order, any record count.

    Args:
      archive: a local .tar.gz.

    Returns:
      The five training batches and the test batch, in the order of `BATCHES`.

    Raises:
      DataError: not a gzipped tar, cut short, another kind of CIFAR, an unsafe member, a batch that is
        missing, there twice, or damaged.
    """
    found: dict[str, Batch] = {}
    try:
        for name, raw in _iterate_members(archive):
            if name in found:
                raise DataError(f'{archive} has {name} twice; it is not the official archive.')
            found[name] = parse_batch(f'{archive}: {name}', raw)._replace(name=name)
    except FileNotFoundError as error:
        raise DataError(f'{archive} does not exist; give the path of a cifar-10-binary.tar.gz.') from error
    except (EOFError, zlib.error) as error:
        raise DataError(f'{archive} is cut short or damaged ({error}); fetch it again.') from error
    except (tarfile.TarError, gzip.BadGzipFile) as error:
        if found:
            raise DataError(f'{archive} is cut short or damaged ({error}); fetch it again.') from error
        raise DataError(
            f'{archive} is not a gzipped tar archive ({error}); cifar-10-binary.tar.gz is needed.'
        ) from error
    except OSError as error:
        raise DataError(f'{archive} cannot be read: {error}.') from error
    missing = [name for name in BATCHES if name not in found]
    if missing:
        raise DataError(
            f'{archive} lacks {", ".join(missing)}; an archive in the layout of cifar-10-binary.tar.gz is needed.'
        )
    return [found[name] for name in BATCHES]


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    """Writes batch files as an archive in the official layout; equal members give equal bytes."""
    with (
        path.open('wb') as file,
        gzip.GzipFile('', 'wb', fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode='w') as tar,
    ):
        for name, raw in members.items():
            member = tarfile.TarInfo(f'{_FOLDER}/{name}')
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
