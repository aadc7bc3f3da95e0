"""The trainings of a root in TensorBoard."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from components.errors import UsageError
from pipeline import tensorboard
from pipeline.run_history import read_runs
from tests.documents import PROJECT
from tests.pipeline.recorded_runs import RecordedRuns


@pytest.fixture
def recorded(tmp_path) -> RecordedRuns:
    return RecordedRuns(tmp_path / 'root')


def add_log(artifact, phase: str = 'training') -> Path:
    """Gives a Trainer's artifact a file as TensorBoard's callback writes it."""
    folder = Path(artifact.uri) / phase / 'train'
    folder.mkdir(parents=True)
    (folder / 'events.out.tfevents.1.machine.v2').touch()
    return Path(artifact.uri)


def test_a_training_is_named_after_its_run_and_stands_there_once_however_often_it_was_reused(recorded):
    first = add_log(recorded.add_pushed_run('20260101-100000', '11', 0.9)['Trainer'])
    recorded.add_step('20260101-110000', 'Trainer', 'model_run')  # it has written no log
    reused = read_runs(recorded.layout)[0].steps[0].outputs['model_run']
    recorded.add_step('20260101-120000', 'Trainer', 'model_run', reused=reused)
    logs = tensorboard.list_logs(read_runs(recorded.layout))
    (name,) = logs
    assert logs[name] == first
    assert name.endswith(' cifar10-test pushed 0.900')


def test_a_root_without_a_training_is_refused(recorded):
    recorded.add_step('20260101-100000', 'DataGate', 'report')
    with pytest.raises(UsageError, match='has a training to show'):
        tensorboard.show(str(recorded.layout.root), 0)


@pytest.mark.slow
def test_tensorboard_shows_the_runs_under_their_names(recorded, tmp_path):
    import tensorflow as tf

    folder = Path(recorded.add_pushed_run('20260101-100000', '11', 0.9)['Trainer'].uri) / 'training' / 'train'
    with tf.summary.create_file_writer(str(folder)).as_default():
        tf.summary.scalar('epoch_accuracy', 0.5, step=0)
    command = [sys.executable, '-m', 'pipeline', 'tensorboard', '--root', str(recorded.layout.root), '--port', '0']
    with (tmp_path / 'log').open('w+') as log:
        process = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log, text=True, start_new_session=True)
        try:
            deadline, names = time.monotonic() + 90, []
            while not names and time.monotonic() < deadline:
                time.sleep(1)
                address = next(
                    (word for word in (tmp_path / 'log').read_text().split() if word.startswith('http:')), ''
                )
                if address:
                    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                    names = json.load(opener.open(f'{address}data/runs', timeout=30))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    (name,) = names
    assert name.endswith(' cifar10-test pushed 0.900/training/train')
