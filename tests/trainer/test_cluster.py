"""Training on several devices, imitated on one machine: by logical CPUs, and by processes that talk over loopback."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from components import features
from components.data import cifar10
from components.errors import TrainingError
from tests.conftest import IMAGE_SIZE, PROJECT
from tests.pipeline.recorded_runs import RecordedRuns, State
from trainer.cluster import choose_strategy, join_cluster
from trainer.config import TrainerConfig
from trainer.model import build_backbone, build_model
from trainer.train import FINISHED_FILE, HISTORY_FILE, KERAS_FILE, REPORT_FILE, run_fn

# Without dropout, because each replica draws its own noise. With small steps of SGD, because random weights amplify
# rounding errors (see test_training_rows.py).
CONFIG = TrainerConfig(
    image_size=IMAGE_SIZE,
    weights='none',
    head_units=(16,),
    dropout=0.0,
    batchnorm_momentum=0.8,
    optimizer='sgd',
    learning_rate=1e-5,
    head_epochs=1,
    head_learning_rate=1e-5,
    epochs=2,
    precision='float32',
    class_weights='balanced',
)


INPUTS = ('ImportExampleGen/examples/*', 'Transform/transform_graph/*', 'CuratedSchemaGen/schema/*/*.pbtxt')


def make_arguments(config: TrainerConfig, sample_data, transform_graph, root: Path) -> dict:
    """The arguments that TFX passes to run_fn, the same on every worker."""
    run_dir = root / 'Trainer' / 'model_run' / '1'
    run_dir.mkdir(parents=True, exist_ok=True)
    return {
        'custom_config': {'trainer': dataclasses.asdict(config), 'export': {'precision': 'float32'}},
        'transform_graph_path': str(transform_graph),
        'schema_path': str(transform_graph / 'metadata' / 'schema.pbtxt'),
        'train_files': [str(sample_data / 'train' / '*')],
        'eval_files': [str(sample_data / 'val' / '*')],
        'base_model': None,
        'model_run_dir': str(run_dir),
        'serving_model_dir': str(root / 'Trainer' / 'model' / '1'),
        'hyperparameters': None,
    }


def start_worker(arguments: dict, cpus: int = 1, tf_config: dict | None = None) -> subprocess.Popen:
    """Starts a process that calls run_fn, as one of the workers that `tf_config` lists."""
    command = [sys.executable, '-m', 'tests.trainer.train_worker', json.dumps(arguments), str(cpus)]
    return start_process(command, tf_config)


def start_process(command: list[str], tf_config: dict | None = None) -> subprocess.Popen:
    """Starts a command as one of the workers that `tf_config` lists."""
    environment = {**os.environ, 'NO_PROXY': '127.0.0.1', 'no_proxy': '127.0.0.1'}
    if tf_config:
        environment['TF_CONFIG'] = json.dumps(tf_config)
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    return subprocess.Popen(command, cwd=PROJECT, env=environment, text=True, **pipes)


def find_ports(count: int) -> list[int]:
    """Finds free ports on loopback."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(('127.0.0.1', 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def finish_workers(processes: list[subprocess.Popen]) -> list[str]:
    """Waits for the workers and returns what each printed; fails if one failed, and leaves no process running."""
    try:
        outputs = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return outputs


def read_results(root: Path) -> tuple[list[dict], np.ndarray, dict]:
    """Reads a training's history, its weights as one vector, and its report."""
    run_dir = root / 'Trainer' / 'model_run' / '1'
    weights = keras.models.load_model(run_dir / KERAS_FILE).get_weights()
    history, report = (json.loads((run_dir / name).read_text()) for name in (HISTORY_FILE, REPORT_FILE))
    return history, np.concatenate([weight.ravel() for weight in weights]), report


@pytest.fixture(scope='module')
def one(sample_data, transform_graph, tmp_path_factory):
    """The results of the training on one device."""
    root = tmp_path_factory.mktemp('one')
    config = dataclasses.replace(CONFIG, strategy='one')
    run_fn(types.SimpleNamespace(**make_arguments(config, sample_data, transform_graph, root)))
    return read_results(root)


def check_that_the_trainings_are_equal(one, other) -> None:
    """Compares two results of `read_results`, up to rounding errors."""
    keras.utils.set_random_seed(CONFIG.seed)
    untrained = np.concatenate(
        [weight.ravel() for weight in build_model(CONFIG, build_backbone(CONFIG), 10).get_weights()]
    )
    change = np.linalg.norm(one[1] - untrained)
    assert change > 0
    assert np.linalg.norm(other[1] - one[1]) < 1e-2 * change
    for entry, expected in zip(other[0], one[0], strict=True):
        assert (entry['phase'], entry['epoch']) == (expected['phase'], expected['epoch'])
        assert entry['loss'] == pytest.approx(expected['loss'], rel=2e-2)
        assert entry['val_accuracy'] == pytest.approx(expected['val_accuracy'], abs=0.05)


def record_run(root: Path, arguments: dict) -> RecordedRuns:
    """Records a run that came to its Trainer, with the data and settings of `make_arguments`, in ML Metadata."""
    runs = RecordedRuns(root)
    examples, graph, schema = (
        Path(runs.add_step('run', component, key).uri)
        for component, key in (
            ('ImportExampleGen', 'examples'),
            ('Transform', 'transform_graph'),
            ('CuratedSchemaGen', 'schema'),
        )
    )
    for key, split in (('train_files', 'train'), ('eval_files', 'val')):
        shutil.copytree(Path(arguments[key][0]).parent, examples / f'Split-{split}')
    shutil.copytree(arguments['transform_graph_path'], graph, dirs_exist_ok=True)
    shutil.copy(arguments['schema_path'], schema)
    properties = {'custom_config': arguments['custom_config']}
    runs.add_step('run', 'Trainer', 'model_run', state=State.FAILED, properties=properties)
    return runs


@pytest.mark.slow
def test_two_workers_train_the_same_model_as_one_and_the_run_takes_it_over(
    one, sample_data, transform_graph, tmp_path, monkeypatch
):
    config = dataclasses.replace(CONFIG, strategy='multi_worker')
    arguments = make_arguments(config, sample_data, transform_graph, tmp_path / 'unused')
    layout = record_run(tmp_path / 'root', arguments).layout
    cluster = {'worker': [f'127.0.0.1:{port}' for port in find_ports(2)]}
    command = [sys.executable, '-m', 'pipeline', 'worker', '--root', str(layout.root)]
    outputs = finish_workers(
        [start_process(command, {'cluster': cluster, 'task': {'type': 'worker', 'index': index}}) for index in range(2)]
    )
    for index, output in enumerate(outputs):
        assert output.endswith(
            f'worker {index} of 2 has ended; when all have, start the run again, without TF_CONFIG: it takes the '
            'trained model over\n'
        )
        (log,) = layout.logs.glob(f'worker-{index}-*.log')
        assert f'worker {index} of 2, 2 replicas in all' in log.read_text()
        assert 'cache in memory' in log.read_text()
    trainer = layout.artifacts / 'Trainer'
    (checkpoints,) = (trainer / 'checkpoints').iterdir()
    assert (checkpoints / FINISHED_FILE).exists()

    # What the run's own Trainer does then.
    run_dir = trainer / 'model_run' / '1'
    run_dir.mkdir()
    examples, graph, schema = (next(layout.artifacts.glob(name)) for name in INPUTS)
    arguments |= {'model_run_dir': str(run_dir), 'serving_model_dir': str(trainer / 'model' / '1')}
    arguments |= {'transform_graph_path': str(graph), 'schema_path': str(schema)}
    arguments |= {'train_files': [f'{examples}/Split-train/*'], 'eval_files': [f'{examples}/Split-val/*']}
    monkeypatch.delenv('TF_CONFIG', raising=False)
    run_fn(types.SimpleNamespace(**arguments))
    check_that_the_trainings_are_equal(one, read_results(layout.artifacts))
    assert not list((trainer / 'checkpoints').iterdir())
    loaded = tf.saved_model.load(str(trainer / 'model' / '1'))
    outputs = loaded.signatures[features.SIGNATURE_RAW](image=tf.zeros([3, *cifar10.CONTRACT.image_shape], tf.uint8))
    assert outputs[features.OUTPUT_PROBABILITIES].shape == (3, 10)


@pytest.mark.slow
def test_two_devices_of_a_machine_train_the_same_model_as_one(one, sample_data, transform_graph, tmp_path):
    config = dataclasses.replace(CONFIG, strategy='mirrored')
    (output,) = finish_workers([start_worker(make_arguments(config, sample_data, transform_graph, tmp_path), cpus=2)])
    assert '2 replicas on this machine' in output
    check_that_the_trainings_are_equal(one, read_results(tmp_path))


@pytest.mark.slow
def test_replicas_train_on_the_same_mixtures_and_keep_the_same_average_as_one_device(
    sample_data, transform_graph, tmp_path
):
    """Two devices with both settings, and two workers with mixed images alone, because they refuse to average."""
    # Only the head is trained, which is quick, in enough steps for an average of several.
    config = dataclasses.replace(CONFIG, train_from='none', head_epochs=0, epochs=2, batch_size=8, mix='mixup')
    averaged = dataclasses.replace(config, weight_average='ema')
    arguments = {
        name: make_arguments(settings, sample_data, transform_graph, tmp_path / name)
        for name, settings in {
            'one': dataclasses.replace(config, strategy='one'),
            'one_averaged': dataclasses.replace(averaged, strategy='one'),
            'devices': dataclasses.replace(averaged, strategy='mirrored'),
            'workers': config,
        }.items()
    }
    for name in ('one', 'one_averaged'):
        run_fn(types.SimpleNamespace(**arguments[name]))
    finish_workers([start_worker(arguments['devices'], cpus=2)])
    cluster = {'worker': [f'127.0.0.1:{port}' for port in find_ports(2)]}
    finish_workers(
        [
            start_worker(
                arguments['workers'], tf_config={'cluster': cluster, 'task': {'type': 'worker', 'index': index}}
            )
            for index in range(2)
        ]
    )
    one, averaged_one = (read_results(tmp_path / name) for name in ('one', 'one_averaged'))
    check_that_the_trainings_are_equal(one, read_results(tmp_path / 'workers'))
    check_that_the_trainings_are_equal(averaged_one, read_results(tmp_path / 'devices'))
    assert np.linalg.norm(one[1] - averaged_one[1]) > 0


def test_auto_means_all_workers_or_else_all_gpus_or_else_one_device():
    assert choose_strategy('auto', workers=1, gpus=0) == 'one'
    assert choose_strategy('auto', workers=1, gpus=1) == 'one'
    assert choose_strategy('auto', workers=1, gpus=2) == 'mirrored'
    assert choose_strategy('auto', workers=2, gpus=2) == 'multi_worker'
    assert choose_strategy('one', workers=1, gpus=2) == 'one'


def test_multi_worker_without_a_cluster_is_refused():
    with pytest.raises(TrainingError, match='needs the environment variable TF_CONFIG with at least two workers'):
        choose_strategy('multi_worker', workers=1, gpus=8)


def test_a_process_that_has_used_tensorflow_cannot_join_workers(monkeypatch):
    tf.constant(1) + 1
    own, other = find_ports(2)
    cluster = {'worker': [f'127.0.0.1:{own}', f'127.0.0.1:{other}']}
    monkeypatch.setenv('TF_CONFIG', json.dumps({'cluster': cluster, 'task': {'type': 'worker', 'index': 0}}))
    is_refused = pytest.raises(TrainingError, match='has to be the first in its process that uses TensorFlow')
    with socket.create_server(('127.0.0.1', other)), is_refused:
        join_cluster('auto')


def test_one_machine_needs_no_cluster(monkeypatch):
    monkeypatch.delenv('TF_CONFIG', raising=False)
    cluster = join_cluster('auto')
    assert not cluster.is_distributed
    assert cluster.is_chief
    assert tuple(cluster.share) == (1, 0, 1)
