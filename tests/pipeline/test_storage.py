"""What is said about storage that fails. Whole runs on such storage are in test_faults.py and in the campaign."""

import os
import re
import sqlite3
import subprocess
import sys

import pytest
import tensorflow as tf

from components.errors import StorageError
from pipeline import storage
from pipeline.config import Layout
from pipeline.storage import check_metadata_store, explain_fault
from tests.conftest import PROJECT


@pytest.fixture
def layout(tmp_path) -> Layout:
    """A root with a small metadata store of one execution, and its artifact."""
    layout = Layout(str(tmp_path))
    with sqlite3.connect(layout.metadata) as connection:
        connection.execute('CREATE TABLE MLMDEnv (schema_version INTEGER)')
        connection.execute('CREATE TABLE Execution (id INTEGER, name TEXT)')
        connection.executemany('INSERT INTO Execution VALUES (?, ?)', [(1, 'x' * 3000)] * 20)
    connection.close()
    (layout.artifacts / 'Trainer' / 'model' / '1').mkdir(parents=True)
    return layout


def test_a_store_that_belongs_to_the_artifacts_is_accepted(layout):
    check_metadata_store(layout)


def test_a_new_root_is_accepted(tmp_path):
    check_metadata_store(Layout(str(tmp_path)))


def test_a_locked_store_is_named_and_works_again_when_it_is_free(layout, monkeypatch):
    monkeypatch.setattr(storage, '_LOCK_TIMEOUT_S', 0.1)
    holder = sqlite3.connect(layout.metadata, isolation_level=None)
    holder.execute('BEGIN EXCLUSIVE')
    with pytest.raises(
        StorageError, match=r'metadata\.sqlite is locked by a different process, .*; end that process, then run'
    ):
        check_metadata_store(layout)
    holder.close()
    check_metadata_store(layout)


def overwrite(path, start: int, content: bytes) -> None:
    with path.open('r+b') as file:
        file.seek(start)
        file.write(content)


@pytest.mark.parametrize('start', [0, 4096 + 5])
def test_a_store_with_overwritten_bytes_is_named_with_the_mend(start, layout):
    overwrite(layout.metadata, start, b'\xa5' * 512)
    with pytest.raises(
        StorageError, match=r'metadata\.sqlite is damaged or is not an ML Metadata store \(.*move it and .*'
    ):
        check_metadata_store(layout)


def test_a_file_of_a_different_kind_in_the_stores_place_is_named(layout):
    layout.metadata.write_text('notes\n' * 100)
    with pytest.raises(StorageError, match='file is not a database'):
        check_metadata_store(layout)
    layout.metadata.unlink()
    with sqlite3.connect(layout.metadata) as connection:
        connection.execute('CREATE TABLE songs (title TEXT)')
    connection.close()
    with pytest.raises(StorageError, match='it lacks the table MLMDEnv'):
        check_metadata_store(layout)


@pytest.mark.parametrize('is_empty_file', [False, True])
def test_results_without_their_store_are_not_mixed_with_new_ones(is_empty_file, layout):
    layout.metadata.unlink()
    if is_empty_file:
        layout.metadata.touch()
    with pytest.raises(StorageError, match=r'artifacts holds results that .*metadata\.sqlite does not know; put'):
        check_metadata_store(layout)
    layout.artifacts.rename(layout.root / 'away')
    check_metadata_store(layout)


def wrap(text: str) -> RuntimeError:
    """Wraps an error as Beam and TFX do: the first one is two causes deep."""
    try:
        try:
            raise tf.errors.ResourceExhaustedError(None, None, text)
        except tf.errors.OpError as error:
            raise ValueError('in a step') from error
    except ValueError as error:
        outer = RuntimeError('Trainer failed')
        outer.__context__ = error
        return outer


@pytest.mark.parametrize(
    ('error', 'sentence'),
    [
        (OSError(28, 'No space left on device'), r'The disk of \S+ is full \([\d,]+ of [\d,]+ MB are free now\); free'),
        (wrap('/root/model; No space left on device'), r'The disk of \S+ is full'),
        (wrap('SQLite: database or disk is full'), r'The disk of \S+ is full'),
        (
            wrap('Concurrent writes aborted after max number of retries.'),
            r'metadata\.sqlite is locked by a different process',
        ),
        (wrap('database disk image is malformed'), r'metadata\.sqlite is damaged'),
    ],
)
def test_a_storage_fault_is_recognized_in_every_wrapping(error, sentence, tmp_path):
    assert re.search(sentence, str(explain_fault(error, Layout(str(tmp_path)))))


def test_other_errors_are_not_blamed_on_storage(tmp_path):
    assert explain_fault(wrap('OOM when allocating tensor'), Layout(str(tmp_path))) is None


def test_errors_that_cause_each_other_are_read_once(tmp_path):
    first, second = ValueError('one'), ValueError('two')
    first.__cause__, second.__cause__ = second, first
    assert explain_fault(first, Layout(str(tmp_path))) is None


def test_a_log_on_a_full_disk_does_not_stop_the_run_and_is_not_printed_on_the_terminal():
    code = (
        'import sys; from pathlib import Path; from pipeline.console import divert_chatter\n'
        "with divert_chatter(Path('/dev/full'), verbose=False) as terminal:\n"
        "    print('chatter'); print('a line', file=terminal)\n"
        "print('after')\n"
    )
    answer = subprocess.run(
        [sys.executable, '-c', code],
        cwd=PROJECT,
        env={name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, 'a line\nafter\n', '')
