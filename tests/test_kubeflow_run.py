"""A whole package: compiled, linted and rehearsed, against a local run with the same settings."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import yaml

from components import features
from components.versions import INFO_FILE
from pipeline.config import Layout
from tests.conftest import PROJECT, run_cli

pytestmark = pytest.mark.slow

SETTINGS = [
    *('--set', 'trainer.image_size=32'),
    *('--set', 'trainer.epochs=1'),
    *('--set', 'trainer.head_units=16'),
    *('--set', 'gate.accuracy=0'),
    *('--set', 'gate.recall=0'),
    *('--set', 'gate.calibration_error=1'),
]


@pytest.fixture(scope='module')
def local(tmp_path_factory):
    """A local run: its root, and the version it pushed."""
    layout = Layout(str(tmp_path_factory.mktemp('local') / 'root'))
    answer = run_cli('run', '--root', layout.root, *SETTINGS)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (version,) = layout.serving.iterdir()
    return layout, version


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """The package of the same pipeline, its data and serving folder on a volume."""
    path = tmp_path_factory.mktemp('package') / 'pipeline.yaml'
    places = ['--pipeline-root', 'minio://mlpipeline/v2', '--data', '/volume/cifar10', '--serving', '/volume/serving']
    volume = ['--set', 'kubeflow.default.pvcs=claim:/volume']
    answer = run_cli('compile', '--out', path, '--image', 'registry.example/cifar10:1.0', *places, *volume, *SETTINGS)
    assert answer.returncode == 0, answer.stderr
    return path


def test_the_package_has_no_problem_and_no_path_of_this_machine(package):
    answer = run_cli('lint', package)
    assert answer.returncode == 0, answer.stdout
    assert str(PROJECT) not in package.read_text()
    assert str(package.parent) not in package.read_text()


def test_every_step_runs_and_pushes_the_local_runs_model_held_against_the_one_that_serves(local, package, tmp_path):
    layout, version = local
    volume = tmp_path / 'volume'
    shutil.copytree(layout.sample, volume / 'cifar10')
    # What serves is the local run's model, under a fingerprint that makes it another one.
    shutil.copytree(version, volume / 'serving' / '1')
    info = json.loads((version / INFO_FILE).read_text())
    (volume / 'serving' / '1' / INFO_FILE).write_text(json.dumps({**info, 'model': 'another'}))

    answer = run_cli('rehearse', package, '--root', tmp_path / 'rehearsal', '--mount', f'/volume={volume}')
    assert answer.returncode == 0, answer.stdout + answer.stderr
    steps = set(next(iter(yaml.safe_load_all(package.read_text())))['root']['dag']['tasks'])
    assert {line.split()[0] for line in answer.stdout.splitlines()[1:-1]} == steps

    (pushed,) = (folder for folder in (volume / 'serving').iterdir() if folder.name not in ('1', '.lock'))
    assert json.loads((pushed / INFO_FILE).read_text())['baseline'] == 1
    verdicts = (tmp_path / 'rehearsal').rglob('verdict.json')
    assert [json.loads(file.read_text())['baseline'].rpartition(': ')[2] for file in verdicts] == [
        'equal within chance'
    ]
    images = [
        example.numpy() for example in tf.data.TFRecordDataset(str(*(volume / 'cifar10' / 'test').iterdir()), 'GZIP')
    ]
    answers = [
        tf.saved_model.load(str(folder)).signatures[features.SIGNATURE_EXAMPLES](tf.constant(images))
        for folder in (version, pushed)
    ]
    here, there = (answer[features.OUTPUT_PROBABILITIES].numpy() for answer in answers)
    np.testing.assert_allclose(there, here, atol=1e-3)
