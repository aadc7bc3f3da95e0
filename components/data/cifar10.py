"""CIFAR-10's binary format: its batch files, and the official archive that holds them.

Called by `pipeline.data` and `components.data.tfrecords`. An archive is a gzipped tar with a folder that holds
`data_batch_1.bin` ... `data_batch_5.bin` and `test_batch.bin`. A record in such a batch file is 3,073 bytes: the
label (0-9), then the red, the green and the blue plane, row by row (https://www.cs.toronto.edu/~kriz/cifar.html).
Of an archive, only members with these six names are written, each under its own name into a folder that the caller
chooses, and nothing is unpickled. So an archive cannot write anywhere else, or run code.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.contract import DataContract
from components.errors import DataError
from components.progress import track

CONTRACT = DataContract(
    # In the order of the official archive (batches.meta.txt).
    class_names=('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'),
    image_size=32,
    is_square=True,
)

_HEIGHT, _WIDTH, _CHANNELS = CONTRACT.image_shape
RECORD_BYTES = 1 + _HEIGHT * _WIDTH * _CHANNELS
TRAIN_BATCHES = tuple(f'data_batch_{n}.bin' for n in range(1, 6))
TEST_BATCH = 'test_batch.bin'
BATCHES = (*TRAIN_BATCHES, TEST_BATCH)

# The official batches have 31 MB. A member is read into memory, so a much larger one would be an attack on it.
MAX_MEMBER_BYTES = 512 * 1024**2

_READ_BYTES = 1024**2

_OTHER_KINDS = {
    'data_batch_1': 'the Python (pickle) version of CIFAR-10',
    'data_batch_1.mat': 'the Matlab version of CIFAR-10',
    'train.bin': 'CIFAR-100',
    'train': 'the Python (pickle) version of CIFAR-100',
}


class BatchFile(NamedTuple):
    """A batch file on this machine whose records have been checked.

    path: the file, with a name from `BATCHES`.
    records: how many of its records are used, counted from the first.
    """

    path: Path
    records: int


class Batch(NamedTuple):
    """Parsed records.

    images: uint8 [N, 32, 32, 3], RGB, 0-255.
    labels: int64 [N], 0-9.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def check_batch(name: str, raw: bytes) -> int:
    """Checks the bytes of a batch file and returns how many records they hold.

    Args:
      name: what error messages call the file.
      raw: its bytes.

    Raises:
      DataError: the bytes are not a whole number of records, there are none, or a label is over 9; the message names
        the file and the record.
    """
    records, rest = divmod(len(raw), RECORD_BYTES)
    if rest:
        raise DataError(
            f'{name} is truncated: {len(raw):,} bytes are {records:,} whole records of {RECORD_BYTES:,} bytes '
            f'and {rest:,} bytes of record {records:,}; fetch the archive again.'
        )
    if not records:
        raise DataError(f'{name} holds no records; fetch the archive again.')
    labels = np.frombuffer(raw, np.uint8)[::RECORD_BYTES]
    wrong = np.flatnonzero(labels >= CONTRACT.num_classes)
    if wrong.size:
        raise DataError(
            f'{name} has label {labels[wrong[0]]} in record {wrong[0]:,}, expected 0-{CONTRACT.num_classes - 1} '
            f'({wrong.size:,} of {records:,} records are wrong); the file is damaged or not CIFAR-10.'
        )
    return records


def read_records(path: Path, start: int, length: int) -> Batch:
    """Reads and parses `length` records of a batch file, beginning with record `start` (the first record is 0)."""
    with path.open('rb') as file:
        file.seek(start * RECORD_BYTES)
        raw = file.read(length * RECORD_BYTES)
    rows = np.frombuffer(raw, np.uint8).reshape(length, RECORD_BYTES)
    planes = rows[:, 1:].reshape(length, _CHANNELS, _HEIGHT, _WIDTH)
    return Batch(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), rows[:, 0].astype(np.int64))


def write_batch(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> BatchFile:
    """Writes uint8 images [N, 32, 32, 3] and their labels [N] as a batch file; the inverse of `read_records`."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    path.write_bytes(np.concatenate([labels.astype(np.uint8)[:, None], planes], axis=1).tobytes())
    return BatchFile(path, len(labels))


def _check_member(member: tarfile.TarInfo, archive: Path) -> None:
    """Refuses members that could write outside the folder, or fill the memory."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or '..' in path.parts:
        raise DataError(f'{archive} has a member outside its folder, {member.name!r}; refused as unsafe.')
    if member.issym() or member.islnk():
        raise DataError(f'{archive} has a link, {member.name!r} -> {member.linkname!r}; refused as unsafe.')
    if not (member.isfile() or member.isdir()):
        raise DataError(f'{archive} has a member that is not a regular file, {member.name!r}; refused as unsafe.')
    if member.size > MAX_MEMBER_BYTES:
        raise DataError(
            f'{archive} has a member of {member.size:,} bytes, {member.name!r}; '
            f'over {MAX_MEMBER_BYTES:,} bytes are refused.'
        )


def _iterate_batches(tar: tarfile.TarFile, archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the bytes of each batch file, and checks every member on the way."""
    for member in tar:
        _check_member(member, archive)
        content = tar.extractfile(member)
        if content is None:  # a folder
            continue
        name = PurePosixPath(member.name).name
        if name in _OTHER_KINDS:
            raise DataError(
                f'{archive} is {_OTHER_KINDS[name]} (it has {member.name!r}); '
                'the binary version is needed: cifar-10-binary.tar.gz.'
            )
        if name in BATCHES:
            yield name, content.read()


def _read_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yields what `_iterate_batches` does, and turns the errors of tarfile and gzip into DataErrors."""
    is_tar = False
    try:
        # tarfile's own reader of gzip streams, 'r|gz', never compares the CRC; gzip does at the end of the file.
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode='r|') as tar:
            for name, raw in _iterate_batches(tar, archive):
                is_tar = True
                yield name, raw
            while stream.read(_READ_BYTES):
                pass
    except FileNotFoundError as error:
        raise DataError(f'{archive} does not exist; give the path of a cifar-10-binary.tar.gz.') from error
    except (EOFError, zlib.error) as error:
        raise DataError(f'{archive} is cut short or damaged ({error}); fetch it again.') from error
    except (tarfile.TarError, gzip.BadGzipFile) as error:
        if is_tar:
            raise DataError(f'{archive} is cut short or damaged ({error}); fetch it again.') from error
        raise DataError(
            f'{archive} is not a gzipped tar archive ({error}); cifar-10-binary.tar.gz is needed.'
        ) from error
    except OSError as error:
        raise DataError(f'{archive} cannot be read: {error}.') from error


def extract_batches(archive: Path, folder: Path) -> list[BatchFile]:
    """Checks an archive in the official layout, with any number of records, and writes its six batch files.

    Args:
      archive: a local .tar.gz.
      folder: where the batch files go; it exists and is empty.

    Returns:
      The five training batches and the test batch, in the order of `BATCHES`.

    Raises:
      DataError: the archive is not a gzipped tar, is cut short, is a different kind of CIFAR, has an unsafe member, or
        has a batch that is missing, there twice, or damaged.
    """
    found: dict[str, BatchFile] = {}
    with track('extraction', len(BATCHES), 'files') as advance:
        for name, raw in _read_archive(archive):
            if name in found:
                raise DataError(f'{archive} has {name} twice; it is not the official archive.')
            found[name] = BatchFile(folder / name, check_batch(f'{archive}: {name}', raw))
            found[name].path.write_bytes(raw)
            advance(1)
    missing = [name for name in BATCHES if name not in found]
    if missing:
        raise DataError(
            f'{archive} lacks {", ".join(missing)}; an archive in the layout of cifar-10-binary.tar.gz is needed.'
        )
    return [found[name] for name in BATCHES]
