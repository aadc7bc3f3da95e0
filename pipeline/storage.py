"""Faults of storage, explained in a sentence: a full disk, a metadata store that is locked or damaged.

`pipeline.local` calls it before a run, to find what can be found then, and after a run that failed.
"""

import contextlib
import errno
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.errors import StorageError
from pipeline.config import Layout

_LOCK_TIMEOUT_S = 5.0  # as long as a reader, such as a backup, may need
_MLMD_TABLE = 'MLMDEnv'  # every ML Metadata store has it
# TensorFlow, HDF5, Beam and SQLite wrap the system's errors in errors of their own, and keep the text.
_FULL = (f'Errno {errno.ENOSPC}]', 'No space left on device', 'disk is full', 'Disk quota exceeded')
_LOCKED = ('database is locked', 'Concurrent writes aborted')  # what ML Metadata says, after 20 s or more
_DAMAGED = ('database disk image is malformed', 'file is not a database')


def _iterate_chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()
    while error is not None and id(error) not in seen:  # an error can be its own cause
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _describe_full_disk(layout: Layout) -> str:
    usages = {folder: shutil.disk_usage(folder) for folder in (layout.root, Path(tempfile.gettempdir()))}
    folder, usage = min(usages.items(), key=lambda item: item[1].free)
    return (
        f'The disk of {folder} is full ({usage.free / 1e6:,.0f} of {usage.total / 1e6:,.0f} MB are free now); '
        'free some space, then run the same command again: what is finished is reused.'
    )


def _describe_locked_store(layout: Layout) -> str:
    return (
        f'{layout.metadata} is locked by a different process, such as an open sqlite3 shell or a backup; '
        'end that process, then run the same command again.'
    )


def _describe_damaged_store(layout: Layout, found: object) -> str:
    return (
        f'{layout.metadata} is damaged or is not an ML Metadata store ({found}); put a backup in its place, or move it '
        f'and {layout.artifacts} away to make every result again; the models in {layout.serving} stay.'
    )


def _read_tables(connection: sqlite3.Connection) -> set[str]:
    """Returns the tables of a store. Raises sqlite3.DatabaseError if it is being written to, or is not intact."""
    connection.execute('BEGIN IMMEDIATE')
    ((answer,),) = connection.execute('PRAGMA quick_check(1)')
    if answer != 'ok':
        raise sqlite3.DatabaseError(' '.join(answer.split()))
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def check_metadata_store(layout: Layout) -> None:
    """Checks that ML Metadata's store can be opened and belongs to the artifacts, before TFX waits for it or fails.

    Raises:
      StorageError: the store is locked or damaged, a file of a different kind is in its place, or it does not know the
        artifacts that are there. A new store would count executions from 1 again, and TFX would write into the folders
        of old artifacts.
    """
    tables: set[str] = set()
    executions = 0
    if layout.metadata.exists():
        address = f'{layout.metadata.as_uri()}?mode=rw'
        try:
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=_LOCK_TIMEOUT_S)) as connection:
                tables = _read_tables(connection)
                if tables and _MLMD_TABLE not in tables:
                    raise sqlite3.DatabaseError(f'it lacks the table {_MLMD_TABLE}')
                if tables:
                    ((executions,),) = connection.execute('SELECT COUNT(*) FROM Execution')
        except sqlite3.DatabaseError as error:
            if getattr(error, 'sqlite_errorcode', None) == sqlite3.SQLITE_BUSY:
                raise StorageError(_describe_locked_store(layout)) from error
            raise StorageError(_describe_damaged_store(layout, error)) from error
    if not executions and any(layout.artifacts.glob('*/*/[0-9]*')):
        raise StorageError(
            f'{layout.artifacts} holds results that {layout.metadata} does not know; put the store that they were made '
            'with in its place, or move the results away to make them again.'
        )


def explain_fault(error: BaseException, layout: Layout) -> StorageError | None:
    """Returns what to raise for an error that a full disk or the metadata store caused, however wrapped, else None."""
    texts = [str(each) for each in _iterate_chain(error)]
    full = any(isinstance(each, OSError) and each.errno == errno.ENOSPC for each in _iterate_chain(error))
    if full or any(mark in text for text in texts for mark in _FULL):
        return StorageError(_describe_full_disk(layout))
    if any(mark in text for text in texts for mark in _LOCKED):
        return StorageError(_describe_locked_store(layout))
    found = [mark for text in texts for mark in _DAMAGED if mark in text]
    return StorageError(_describe_damaged_store(layout, found[0])) if found else None
