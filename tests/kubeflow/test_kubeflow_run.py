"""A package is compiled, linted and rehearsed, and its model compared with that of a local run; both in an S3 store.

The data is a folder of somebody's own pictures of three classes. The package's Trainer is killed in its second epoch
of three, and the local run's is not.
"""

import json
import threading
import time
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
import yaml

from components import features
from components.places import fetch, locate
from components.serving.versions import INFO_FILE, list_versions
from kubeflow.pages import PAGES
from tests.conftest import PROJECT, run_cli
from tests.pictures import CLASSES, write_pictures

pytestmark = pytest.mark.slow

SETTINGS = [
    *('--set', 'trainer.image_size=32'),
    *('--set', 'trainer.epochs=3'),
    *('--set', 'trainer.head_units=16'),
    *('--set', 'gate.accuracy=0'),
    *('--set', 'gate.recall=0'),
    *('--set', 'gate.calibration_error=1'),
]


@pytest.fixture
def bucket(make_bucket, tmp_path):
    """A bucket that has somebody's own pictures as data in pictures/."""
    write_pictures(tmp_path / 'files', 20)
    answer = run_cli('data', '--images', tmp_path / 'files', '--out', tmp_path / 'pictures')
    assert answer.returncode == 0, answer.stderr
    bucket = locate(make_bucket('s3'))
    (bucket / 'pictures').upload_from(tmp_path / 'pictures')
    return bucket


@pytest.fixture
def version(bucket, tmp_path):
    """The version that a local run pushed."""
    places = ['--data', bucket / 'pictures', '--set', f'serving={bucket / "local"}']
    answer = run_cli('run', '--root', tmp_path / 'root', *places, *SETTINGS)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (version,) = list_versions(bucket / 'local')
    assert version.info['data']['source']['kind'] == 'images'
    return version


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """The package of the same pipeline; the address and the keys of the store are in a secret."""
    path = tmp_path_factory.mktemp('package') / 'pipeline.yaml'
    places = [
        '--pipeline-root',
        'minio://mlpipeline/v2',
        '--data',
        's3://bucket/data',
        '--serving',
        's3://bucket/serving',
    ]
    names = ('AWS_ENDPOINT_URL', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY')
    volume = [
        '--set',
        'kubeflow.steps.Trainer.pvcs=checkpoints:/checkpoints',
        '--set',
        'trainer.checkpoint_dir=/checkpoints',
    ]
    secret = ['--set', f'kubeflow.default.secret_env={",".join(f"{name}=store:{name}" for name in names)}']
    answer = run_cli(
        'compile', '--out', path, '--image', 'registry.example/cifar10:1.0', *places, *secret, *volume, *SETTINGS
    )
    assert answer.returncode == 0, answer.stderr
    return path


def test_the_package_has_neither_problems_nor_paths_of_this_machine(package):
    answer = run_cli('lint', package)
    assert answer.returncode == 0, answer.stdout
    assert str(PROJECT) not in package.read_text()
    assert str(package.parent) not in package.read_text()


class Killer(threading.Thread):
    """Kills the Trainer that this process has started once the checkpoint of its first epoch is there.

    found: the epochs that had a checkpoint when the Trainer was dead.
    """

    def __init__(self, checkpoints: Path):
        super().__init__(daemon=True)
        self.found: list[str] = []
        self._checkpoints = checkpoints

    def run(self) -> None:
        while not [*self._checkpoints.glob('*/training/epoch-00001/state.json')]:
            time.sleep(0.01)
        for child in psutil.Process().children(recursive=True):
            if 'tfx.components.trainer.executor.GenericExecutor' in child.cmdline():
                child.kill()
                child.wait()
        self.found = [each.name for each in self._checkpoints.glob('*/training/epoch-*')]


def test_every_step_runs_and_the_same_model_as_locally_is_compared_with_the_serving_one_and_pushed(
    bucket, version, package, tmp_path
):
    serving = bucket / 'serving'
    with fetch(version.folder) as model:  # the local run's model serves, under a different fingerprint
        (model / INFO_FILE).write_text(json.dumps({**version.info, 'model': 'different'}))
        (serving / '1').upload_from(model)

    places = ['--parameter', f'data={bucket / "pictures"}', '--parameter', f'serving={serving}']
    places += ['--mount', f'/checkpoints={tmp_path / "checkpoints"}']
    killer = Killer(tmp_path / 'checkpoints')
    killer.start()
    answer = run_cli('rehearse', package, '--root', 'rehearsal', *places, folder=tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert killer.found == ['epoch-00001'], 'the Trainer was killed in its second epoch'
    assert 'attempt 1 of 3 failed: Trainer was killed by signal 9' in answer.stdout
    assert 'training resumes after epoch 1 of 3' in (tmp_path / 'rehearsal' / 'logs' / 'Trainer-1.log').read_text()
    assert not [*(tmp_path / 'checkpoints').iterdir()], 'they are removed when the training has ended'
    steps = set(next(iter(yaml.safe_load_all(package.read_text())))['root']['dag']['tasks'])
    assert {line.split()[0] for line in answer.stdout.splitlines()[1:-1]} == steps

    _, pushed = list_versions(serving)
    assert pushed.info['baseline'] == 1
    verdicts = (tmp_path / 'rehearsal').rglob('verdict.json')
    assert [json.loads(file.read_text())['baseline'].rpartition(': ')[2] for file in verdicts] == [
        'equal within chance'
    ]
    written = {file.parent.parent.name: file for file in (tmp_path / 'rehearsal').rglob('output_metadata.json')}
    shown = {}
    for step in ('Trainer', 'Evaluator', 'ServingCheck', 'Report'):
        for name, entry in json.loads(written[step].read_text())['artifacts'].items():
            [artifact] = entry['artifacts']
            if name in PAGES:
                assert artifact['uri'].startswith('minio://mlpipeline/v2/')
                shown[name] = artifact.get('metadata', {})
    assert shown['training_metrics']['device'].startswith('CPU')
    assert shown['report_page'] == {}
    (page,) = (file for file in (tmp_path / 'rehearsal').rglob('report_page') if file.is_file())
    assert f'pushed as version {pushed.number}' in page.read_text()
    assert shown['evaluation_metrics']['verdict'] == 'blessed'
    assert shown['serving_metrics']['verdict'] == 'servable'
    assert sum(sum(row['row']) for row in shown['confusion_matrix']['confusionMatrix']['rows']) == 6
    killed, whole = (
        keras.saving.load_model(next((tmp_path / folder).rglob('model.keras'))) for folder in ('rehearsal', 'root')
    )
    for one, other in zip(killed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    matrix = shown['confusion_matrix']['confusionMatrix']
    assert [each['displayName'] for each in matrix['annotationSpecs']] == list(CLASSES)
    (records,) = (tmp_path / 'pictures' / 'test').iterdir()
    images = [example.numpy() for example in tf.data.TFRecordDataset(str(records), 'GZIP')]
    answers = []
    for each in (version, pushed):
        with fetch(each.folder) as model:
            signature = tf.saved_model.load(str(model)).signatures[features.SIGNATURE_EXAMPLES]
            answers.append(signature(tf.constant(images))[features.OUTPUT_PROBABILITIES].numpy())
    here, there = answers
    np.testing.assert_allclose(there, here, atol=1e-3)
