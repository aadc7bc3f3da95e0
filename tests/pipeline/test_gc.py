"""gc: what it removes, what it never does, and how many bytes it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2

from pipeline import gc
from pipeline.__main__ import main
from pipeline.local import lock_root
from pipeline.run_history import read_runs
from tests.documents import PROJECT
from tests.pipeline.recorded_runs import ARTIFACT_BYTES, RecordedRuns, State


@pytest.fixture
def recorded(tmp_path) -> RecordedRuns:
    return RecordedRuns(tmp_path / 'root')


def collect(recorded: RecordedRuns, *options: str) -> int:
    return main(['gc', '--root', str(recorded.layout.root), *options])


def list_deleted(recorded: RecordedRuns) -> set[str]:
    deleted = metadata_store_pb2.Artifact.DELETED
    return {artifact.uri for artifact in recorded.store.get_artifacts() if artifact.state == deleted}


def test_old_runs_lose_their_artifacts_and_kept_runs_lose_nothing(recorded, capsys):
    old, kept = recorded.add_pushed_run('a', '11'), recorded.add_pushed_run('b', '12')
    assert collect(recorded, '--keep', '1') == 0
    assert not any(Path(artifact.uri).exists() for artifact in old.values())
    assert all((Path(artifact.uri) / 'weights').exists() for artifact in kept.values())
    assert list_deleted(recorded) == {artifact.uri for artifact in old.values()}
    first, second = read_runs(recorded.layout)
    assert (first.outcome, first.accuracy) == (second.outcome, second.accuracy), 'what came of a run stays known'
    text = capsys.readouterr().out
    assert re.match(r'removed 3 folders of 1 old runs, which freed 0\.1 MB \(\d[\d,]+ bytes\)\n', text)
    freed = int(re.search(r'\(([\d,]+) bytes\)', text)[1].replace(',', ''))
    assert 3 * ARTIFACT_BYTES <= freed < 3 * ARTIFACT_BYTES + 50_000  # whole blocks, and the small JSON files


def test_what_a_kept_run_reused_or_read_of_an_old_run_stays(recorded):
    old = recorded.add_pushed_run('a', '11')
    recorded.add_step('b', 'Trainer', 'model_run', reused=old['Trainer'])
    recorded.add_step('b', 'Pusher', 'pushed_model', inputs=(old['Evaluator'],), version='12')
    assert collect(recorded, '--keep', '1') == 0
    assert Path(old['Trainer'].uri).exists()
    assert Path(old['Evaluator'].uri).exists()
    assert list_deleted(recorded) == {old['Pusher'].uri}


def test_a_pushed_version_keeps_its_files_and_their_bytes_are_not_called_freed(recorded, capsys):
    old = recorded.add_pushed_run('a', '11')
    recorded.add_pushed_run('b', '12')
    version = recorded.layout.serving / '11'
    version.mkdir(parents=True)
    os.link(Path(old['Pusher'].uri) / 'weights', version / 'weights')
    assert collect(recorded, '--keep', '1') == 0
    assert (version / 'weights').read_bytes() == b'x' * ARTIFACT_BYTES
    freed = int(re.search(r'\(([\d,]+) bytes\)', capsys.readouterr().out)[1].replace(',', ''))
    assert freed < 3 * ARTIFACT_BYTES


def test_two_links_that_are_both_removed_free_their_bytes_once(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
    (tmp_path / 'a' / 'file').write_bytes(b'x' * 4096)
    os.link(tmp_path / 'a' / 'file', tmp_path / 'b' / 'file')
    assert gc.measure_freed_bytes([tmp_path / 'a']) == 0
    assert 4096 <= gc.measure_freed_bytes([tmp_path / 'a', tmp_path / 'b']) < 2 * 4096 + 1


def test_what_a_failed_execution_left_is_removed_and_its_checkpoints_stay(recorded):
    recorded.add_step('a', 'Trainer', 'model', state=State.FAILED)
    left = recorded.layout.artifacts / 'Trainer' / 'model' / '1'
    system = recorded.layout.artifacts / 'Trainer' / '.system' / 'executor_execution' / '1'
    checkpoints = recorded.layout.artifacts / 'Trainer' / 'checkpoints' / '7a7b6efe913b1bec'
    for folder in (system, checkpoints):
        folder.mkdir(parents=True)
    recorded.add_pushed_run('b', '12')
    assert left.exists()
    assert collect(recorded, '--keep', '1') == 0
    assert [left.exists(), system.exists(), checkpoints.exists()] == [False, False, True]


def test_the_artifacts_of_a_run_that_pushed_nothing_are_marked_too(recorded):
    """ML Metadata ends the process if it is given an artifact with a property that has no value."""
    model = recorded.add_step('a', 'Trainer', 'model_run')
    nothing = recorded.add_step('a', 'Pusher', 'pushed_model', inputs=(model,))
    recorded.add_pushed_run('b', '12')
    command = [sys.executable, '-m', 'pipeline', 'gc', '--keep', '1', '--root', recorded.layout.root]
    answer = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, '')
    assert list_deleted(recorded) == {model.uri, nothing.uri}


def test_a_dry_run_says_the_same_and_removes_nothing(recorded, capsys):
    old = recorded.add_pushed_run('a', '11')
    recorded.add_pushed_run('b', '12')
    assert collect(recorded, '--keep', '1', '--dry-run') == 0
    assert all(Path(artifact.uri).exists() for artifact in old.values())
    assert list_deleted(recorded) == set()
    planned = capsys.readouterr().out
    assert collect(recorded, '--keep', '1') == 0
    done = capsys.readouterr().out
    assert planned.replace('would remove', 'removed').replace('would free', 'freed') == done


def test_a_second_gc_finds_nothing_and_one_that_was_killed_is_finished(recorded, capsys):
    old = recorded.add_pushed_run('a', '11')
    recorded.add_pushed_run('b', '12')
    assert collect(recorded, '--keep', '1') == 0
    capsys.readouterr()
    assert collect(recorded, '--keep', '1') == 0
    assert capsys.readouterr().out == 'nothing to remove: the newest 1 of 2 runs use every artifact\n'
    Path(old['Trainer'].uri).mkdir()  # as a killed gc leaves it: marked as deleted, and there
    assert collect(recorded, '--keep', '1') == 0
    assert not Path(old['Trainer'].uri).exists()


def test_nothing_is_removed_while_a_run_uses_the_root(recorded, capsys):
    old = recorded.add_pushed_run('a', '11')
    recorded.add_pushed_run('b', '12')
    with lock_root(recorded.layout.root):
        assert collect(recorded, '--keep', '1') == 2
    assert f'{recorded.layout.root} is in use by process {os.getpid()}' in capsys.readouterr().err
    assert all(Path(artifact.uri).exists() for artifact in old.values())


def test_artifacts_outside_of_the_root_are_left_alone(recorded, tmp_path):
    foreign = tmp_path / 'foreign'
    recorded.add_step('a', 'Trainer', 'model')
    (artifact,) = recorded.store.get_artifacts()
    artifact.uri = str(foreign)
    recorded.store.put_artifacts([artifact])
    foreign.mkdir()
    recorded.add_pushed_run('b', '12')
    assert collect(recorded, '--keep', '1') == 0
    assert foreign.exists()
    assert list_deleted(recorded) == set()


def test_at_least_one_run_is_kept(recorded, capsys):
    recorded.add_pushed_run('a', '11')
    assert collect(recorded, '--keep', '0') == 2
    assert capsys.readouterr().err == 'error: --keep takes a number of at least 1. Received: 0\n'
