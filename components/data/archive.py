"""The archives of CIFAR-10 and CIFAR-100: which of the two one is, and the bytes of its members, checked on the way.

Called by `components.data.cifar10`, `components.data.cifar100` and `pipeline.data`. An archive is a gzipped tar. Of its
members only those that the format names are read, each by the last part of its name, nothing is written here, and
nothing is unpickled. So an archive cannot write anywhere, or run code.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.errors import DataError

# The official members have up to 154 MB. A member is read into memory, so a much larger one would be an attack on it.
MAX_MEMBER_BYTES = 512 * 1024**2

_READ_BYTES = 1024**2


class Format(NamedTuple):
    """How an archive is laid out.

    title: what sentences call the data.
    archive: the official archive's file name.
    members: the file names that an archive must have, whatever their folder.
    """

    title: str
    archive: str
    members: tuple[str, ...]


_OTHER_KINDS = {
    'data_batch_1': ('the Python (pickle) version of CIFAR-10', 'cifar-10-binary.tar.gz'),
    'data_batch_1.mat': ('the Matlab version of CIFAR-10', 'cifar-10-binary.tar.gz'),
    'train': ('the Python (pickle) version of CIFAR-100', 'cifar-100-binary.tar.gz'),
    'train.mat': ('the Matlab version of CIFAR-100', 'cifar-100-binary.tar.gz'),
}


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


def _iterate_members(tar: tarfile.TarFile, archive: Path, formats: Sequence[Format]) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the bytes of each member that a format names, and checks every member on the way."""
    names = {name for each in formats for name in each.members}
    for member in tar:
        _check_member(member, archive)
        content = tar.extractfile(member)
        if content is None:  # a folder
            continue
        name = PurePosixPath(member.name).name
        if name in _OTHER_KINDS:
            kind, needed = _OTHER_KINDS[name]
            raise DataError(f'{archive} is {kind} (it has {member.name!r}); the binary version is needed: {needed}.')
        if name in names:
            yield name, content.read()


def _read_archive(archive: Path, formats: Sequence[Format]) -> Iterator[tuple[str, bytes]]:
    """Yields what `_iterate_members` does, and turns the errors of tarfile and gzip into DataErrors."""
    is_tar, needed = False, ' or '.join(each.archive for each in formats)
    try:
        # tarfile's own reader of gzip streams, 'r|gz', never compares the CRC; gzip does at the end of the file.
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode='r|') as tar:
            for name, raw in _iterate_members(tar, archive, formats):
                is_tar = True
                yield name, raw
            while stream.read(_READ_BYTES):
                pass
    except FileNotFoundError as error:
        raise DataError(f'{archive} does not exist; give the path of a {needed}.') from error
    except (EOFError, zlib.error) as error:
        raise DataError(f'{archive} is cut short or damaged ({error}); fetch it again.') from error
    except (tarfile.TarError, gzip.BadGzipFile) as error:
        if is_tar:
            raise DataError(f'{archive} is cut short or damaged ({error}); fetch it again.') from error
        raise DataError(f'{archive} is not a gzipped tar archive ({error}); {needed} is needed.') from error
    except OSError as error:
        raise DataError(f'{archive} cannot be read: {error}.') from error


def find_format(archive: Path, formats: Sequence[Format]) -> Format:
    """Returns the format of an archive, which the first member that is known decides.

    Raises:
      DataError: the archive is not a gzipped tar, is cut short, has an unsafe member, or no member of any format.
    """
    for name, _ in _read_archive(archive, formats):
        return next(each for each in formats if name in each.members)
    known = ', nor '.join(f'the files of {each.title} ({each.members[0]}, ...)' for each in formats)
    needed = ' or '.join(each.archive for each in formats)
    raise DataError(f'{archive} has neither {known}; an archive in the layout of {needed} is needed.')


def read_members(archive: Path, form: Format) -> Iterator[tuple[str, bytes]]:
    """Yields the file name and the bytes of each member of the format, in the archive's order.

    Raises:
      DataError: the archive is not a gzipped tar, is cut short, is a different version of CIFAR, has an unsafe member,
        or has a member that is missing or there twice.
    """
    seen: set[str] = set()
    for name, raw in _read_archive(archive, [form]):
        if name in seen:
            raise DataError(f'{archive} has {name} twice; it is not the official archive.')
        seen.add(name)
        yield name, raw
    missing = [name for name in form.members if name not in seen]
    if missing:
        raise DataError(f'{archive} lacks {", ".join(missing)}; an archive in the layout of {form.archive} is needed.')


def count_records(name: str, raw: bytes, record_bytes: int) -> int:
    """Returns how many records the bytes of a member hold.

    Args:
      name: what error messages call the member.
      raw: its bytes.
      record_bytes: the length of a record.

    Raises:
      DataError: the bytes are not a whole number of records, or there are none; the message names the record.
    """
    records, rest = divmod(len(raw), record_bytes)
    if rest:
        raise DataError(
            f'{name} is truncated: {len(raw):,} bytes are {records:,} whole records of {record_bytes:,} bytes '
            f'and {rest:,} bytes of record {records:,}; fetch the archive again.'
        )
    if not records:
        raise DataError(f'{name} holds no records; fetch the archive again.')
    return records


def check_labels(name: str, labels: npt.NDArray[np.uint8], num_classes: int, title: str) -> None:
    """Checks that the labels of a member's records, uint8 [N], are classes.

    Args:
      name: what error messages call the labels.
      labels: in the order of the records.
      num_classes: number of classes.
      title: what the data is called.

    Raises:
      DataError: a label is not a class; the message names the first such record.
    """
    wrong = np.flatnonzero(labels >= num_classes)
    if wrong.size:
        raise DataError(
            f'{name} has label {labels[wrong[0]]} in record {wrong[0]:,}, expected 0-{num_classes - 1} '
            f'({wrong.size:,} of {labels.size:,} records are wrong); the file is damaged or not {title}.'
        )
