"""Staging, so that a folder or a file appears whole or not at all: it is written beside its place and then renamed."""

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

_PATTERN = re.compile(r'\..*\.partial-(?P<host>.+)-(?P<pid>\d+)')


def _is_abandoned(folder: Path) -> bool:
    """Whether the process that made a staging folder has ended; for a different host that is unknown, so False."""
    match = _PATTERN.fullmatch(folder.name)
    if not match or match['host'] != socket.gethostname():
        return False
    pid = int(match['pid'])
    # A folder with our own id was left by an earlier process that had the same id.
    return pid == os.getpid() or not Path(f'/proc/{pid}').exists()


@contextlib.contextmanager
def stage_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder beside `target`, on the same file system, which the caller can rename to `target`.

    The folder is removed at the end if it was not renamed. Staging folders that killed processes of this host left
    beside `target` are removed at the beginning.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f'.{target.name}.partial-*'):
        if _is_abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    staging = target.with_name(f'.{target.name}.partial-{socket.gethostname()}-{os.getpid()}')
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_bytes(file: Path, content: bytes) -> None:
    """Writes a file, or replaces it, whole or not at all.

    Raises:
      OSError: the file cannot be written; what was there before is still there.
    """
    staging = file.with_name(f'.{file.name}.partial-{os.getpid()}')
    try:
        staging.write_bytes(content)
        staging.replace(file)
    except OSError:
        staging.unlink(missing_ok=True)
        raise


def write_text(file: Path, text: str) -> None:
    """Writes a text file in UTF-8 as `write_bytes` does."""
    write_bytes(file, text.encode())
