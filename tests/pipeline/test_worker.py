"""`worker`: what it refuses. tests/trainer/test_cluster.py trains with it."""

import json
from pathlib import Path

import pytest

from pipeline.__main__ import main
from tests.pipeline.recorded_runs import RecordedRuns, State
from trainer.config import TrainerConfig

CLUSTER = {'cluster': {'worker': ['127.0.0.1:1', '127.0.0.1:2']}, 'task': {'type': 'worker', 'index': 0}}


def add_run(root: Path, **settings: str) -> RecordedRuns:
    """Records a run whose Trainer has failed, without the data that it read."""
    runs = RecordedRuns(root)
    config = json.loads(TrainerConfig(**settings).to_json())
    runs.add_step('run', 'Trainer', 'model', state=State.FAILED, properties={'custom_config': {'trainer': config}})
    return runs


def check(root: Path, sentence: str, capsys) -> None:
    assert main(['worker', '--root', str(root)]) == 2
    assert sentence in ' '.join(capsys.readouterr().err.split())


@pytest.fixture
def tf_config(monkeypatch):
    monkeypatch.setenv('TF_CONFIG', json.dumps(CLUSTER))


def test_a_worker_alone_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv('TF_CONFIG', raising=False)
    check(tmp_path, 'A worker needs the environment variable TF_CONFIG', capsys)


def test_a_folder_without_runs_is_refused(tf_config, tmp_path, capsys):
    check(tmp_path, 'holds no runs', capsys)


def test_a_run_that_did_not_come_to_its_trainer_is_refused(tf_config, tmp_path, capsys):
    RecordedRuns(tmp_path).add_step('run', 'Transform', 'transform_graph')
    check(tmp_path, 'has no run that came to its Trainer; start one with --set', capsys)


@pytest.mark.parametrize(
    ('settings', 'mend'),
    [
        ({'strategy': 'one'}, '--set trainer.strategy=multi_worker'),
        ({'weight_average': 'ema'}, '--set trainer.weight_average=none'),
    ],
)
def test_settings_for_one_machine_are_refused(tf_config, tmp_path, capsys, settings, mend):
    add_run(tmp_path, **settings)
    check(tmp_path, mend, capsys)


def test_data_that_is_not_on_this_machine_is_named(tf_config, tmp_path, capsys):
    add_run(tmp_path)
    check(tmp_path, 'The output `examples` of ImportExampleGen is gone from', capsys)
