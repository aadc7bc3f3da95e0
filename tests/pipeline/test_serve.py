"""The `serve` command: which server it starts, with which files, how it follows models.config, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.errors import PipelineError, UsageError
from components.serving import version_labels, versions
from components.serving.model_servers import IMAGE
from components.serving.models_config import CONFIG_FILE
from components.serving.server_files import make_message
from components.serving_check.tf_serving import find_free_ports
from pipeline import serve
from tests.conftest import PROJECT, run_cli

STAND_IN = f"""#!{sys.executable}
import json, os, signal, sys, time
print('loading', flush=True)
flags = dict(flag.removeprefix('--').partition('=')[::2] for flag in sys.argv[1:])
texts = {{name: open(path).read() for name, path in flags.items() if name.endswith('_file')}}
record = os.environ['RECORD']
json.dump([sys.argv, texts], open(record + '.new', 'w'))
os.rename(record + '.new', record)
def stop(number, frame):
    print('answering the last request', flush=True)
    time.sleep(float(os.environ.get('LAST_S', '0')))
    open(record + '.stopped', 'w').write(signal.Signals(number).name)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
time.sleep(60)
"""
"""Stands for a model server: it writes down how it was started, and what it does when it is stopped."""


@pytest.fixture(autouse=True)
def empty_path(monkeypatch, tmp_path) -> Path:
    """Makes PATH only this folder, so that no model server or Docker of the machine is found."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    monkeypatch.setenv('PATH', str(folder))
    monkeypatch.setenv('RECORD', str(tmp_path / 'record'))
    return folder


def install(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def add_version(serving: Path, number: int, **info) -> None:
    (serving / str(number) / 'assets.extra').mkdir(parents=True)
    (serving / str(number) / versions.MODEL_FILE).touch()
    (serving / str(number) / versions.INFO_FILE).write_text(json.dumps(info))


@pytest.fixture
def serving(tmp_path) -> Path:
    """A serving folder with one version, whose latencies were measured."""
    folder = tmp_path / 'serving'
    add_version(folder, 7, batch_ms={'1': 20.0, '2': 32.0, '4': 49.0, '8': 82.0, '16': 151.0, '32': 313.0})
    return folder


@pytest.fixture
def ports() -> tuple[int, int]:
    """Two ports that are free."""
    first, second = find_free_ports(2)
    return first, second


def wait_for(condition, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def start(serving, ports, tmp_path) -> Iterator:
    """Starts the command, waits until the stand-in runs, and returns the process."""
    started = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen:
        words = ['serve', '--serving', str(serving), '--port', str(ports[0]), '--rest-port', str(ports[1]), *arguments]
        started.append(
            subprocess.Popen(
                [sys.executable, '-m', 'pipeline', *words],
                cwd=PROJECT,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        wait_for(lambda: (tmp_path / 'record').exists() or started[-1].poll() is not None)
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def read_record(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    command, texts = json.loads((tmp_path / 'record').read_text())
    return command, texts


def test_the_server_gets_files_that_its_own_messages_can_read(empty_path, start, serving, ports, tmp_path):
    install(empty_path, 'tensorflow_model_server', STAND_IN)
    process = start()
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    command, texts = read_record(tmp_path)
    assert {f'--port={ports[0]}', f'--rest_api_port={ports[1]}', '--enable_batching'} <= {*command}
    assert '--allow_version_labels_for_unavailable_models' in command
    models = text_format.Parse(texts['model_config_file'], model_server_config_pb2.ModelServerConfig())
    [config] = models.model_config_list.config
    assert (config.name, config.base_path) == ('cifar10', str(serving))
    batching = text_format.Parse(texts['batching_parameters_file'], make_message('BatchingParameters'))
    assert (batching.max_execution_batch_size.value, batching.batch_timeout_micros.value) == (8, 2000)
    assert batching.num_batch_threads.value == len(os.sched_getaffinity(0))
    monitoring = text_format.Parse(texts['monitoring_config_file'], make_message('MonitoringConfig'))
    assert monitoring.prometheus_config.enable
    assert out.splitlines() == [
        f'started tensorflow_model_server for {serving}',
        f'REST http://localhost:{ports[1]}/v1/models/cifar10, gRPC localhost:{ports[0]}; Ctrl-C stops it',
        'version 7: batches of 1, 2, 4 or 8 images (as its serving check measured)',
    ]
    assert error.splitlines() == ['loading', 'answering the last request'], 'what the server prints is shown'
    assert not [each for each in serving.iterdir() if each.name != '7'], 'nothing is written into the serving folder'


def test_ctrl_c_lets_the_server_answer_its_last_requests(empty_path, start, tmp_path):
    install(empty_path, 'tensorflow_model_server', STAND_IN)
    process = start(LAST_S='3')  # longer than other commands may take
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (tmp_path / 'record.stopped').read_text() == 'SIGTERM'
    assert error.splitlines()[-1] == 'interrupted; the server has been stopped'


def test_a_promotion_reaches_a_server_that_was_started_without_models_config(empty_path, start, serving, tmp_path):
    install(empty_path, 'tensorflow_model_server', STAND_IN)
    start()
    command, texts = read_record(tmp_path)
    assert 'stable' not in texts['model_config_file']
    version_labels.promote(serving, 7, 'stable')
    config = (serving / CONFIG_FILE).read_text().replace(str(serving), '/models/cifar10')
    (serving / CONFIG_FILE).write_text(config)  # as a container sees the folder
    (file,) = (Path(flag.partition('=')[2]) for flag in command if flag.startswith('--model_config_file='))
    wait_for(lambda: 'stable' in file.read_text())
    [read] = text_format.Parse(file.read_text(), model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (read.base_path, dict(read.version_labels)) == (str(serving), {'stable': 7})


ENDS = {
    '#!/bin/sh\necho starting; echo "unknown argument: --x" >&2; exit 3\n': (
        'tensorflow_model_server ended with code 3: unknown argument: --x'
    ),
    '#!/bin/sh\nkill -9 $$\n': 'tensorflow_model_server was ended by SIGKILL: it said nothing',
}


@pytest.mark.parametrize('script', ENDS)
def test_the_last_words_of_a_server_that_ends_by_itself_are_the_error(script, empty_path, serving, ports):
    install(empty_path, 'tensorflow_model_server', script)
    with pytest.raises(PipelineError) as error:
        serve.serve(serving, ports, None)
    assert str(error.value) == ENDS[script]
    assert error.value.exit_code == 1


def test_a_damaged_models_config_is_refused_at_the_start(empty_path, serving, ports):
    install(empty_path, 'tensorflow_model_server', STAND_IN)
    (serving / CONFIG_FILE).write_text('model_config_list {')
    with pytest.raises(PipelineError, match='is not a configuration of TensorFlow Serving'):
        serve.serve(serving, ports, None)


def test_the_first_server_that_is_there_is_started(empty_path, tmp_path):
    small = serve.choose_server(None)
    assert small.make_command((1, 2), ())[1:] == ['-u', '-m', 'pipeline.server']
    assert 'which is not TensorFlow Serving' in small.name
    install(empty_path, 'docker', f'#!/bin/sh\ntest "$*" = "image inspect {IMAGE}"\n')
    docker = serve.choose_server(None)
    assert docker.name == f'Docker image {IMAGE}'
    command = docker.make_command((8500, 8501), (tmp_path,))
    assert {f'--volume={tmp_path}:{tmp_path}:ro', '--publish=127.0.0.1:8501:8501', '--pull=never'} <= {*command}
    install(empty_path, 'tensorflow_model_server', STAND_IN)
    assert serve.choose_server(None).name == 'tensorflow_model_server'
    assert serve.choose_server('docker').name == docker.name
    assert serve.choose_server('small').name == small.name


@pytest.mark.parametrize(
    ('engine', 'words'), [('tensorflow-serving', 'is not on PATH'), ('docker', f'`docker pull {IMAGE}`')]
)
def test_a_server_that_is_asked_for_and_not_there_is_refused(engine, words):
    with pytest.raises(UsageError, match=words):
        serve.choose_server(engine)


def test_only_the_small_server_samples_requests(empty_path, serving, ports, monkeypatch):
    install(empty_path, 'tensorflow_model_server', STAND_IN)
    with pytest.raises(UsageError, match='--requests needs --engine small: tensorflow_model_server keeps no sample'):
        serve.serve(serving, ports, None, 'requests')
    print_last = [sys.executable, '-c', 'import sys; print(sys.argv[-1])']
    small = serve.choose_server('small')._replace(make_command=lambda *_: print_last)
    monkeypatch.setattr(serve, 'choose_server', lambda engine: small)
    with pytest.raises(PipelineError, match='--requests=requests'):
        serve.serve(serving, ports, 'small', 'requests')


def test_a_folder_without_a_version_is_refused_in_a_sentence(tmp_path):
    (tmp_path / 'serving').mkdir()
    answer = run_cli('serve', '--serving', tmp_path / 'serving')
    assert answer.returncode == 2
    assert answer.stderr == (
        f'error: {tmp_path / "serving"} has no version yet; `python -m pipeline run` pushes one.\n'
    )


def test_a_port_that_is_taken_is_refused(serving, ports):
    sentence = f'Port {ports[1]} cannot be used .* with --rest-port'
    with socket.create_server(('127.0.0.1', ports[1])), pytest.raises(UsageError, match=sentence):
        serve.serve(serving, ports, 'small')


@pytest.mark.parametrize(('pair', 'words'), [((8500, 8500), 'two different'), ((0, 8501), '--port takes')])
def test_ports_that_make_no_sense_are_refused(serving, pair, words):
    with pytest.raises(UsageError, match=words):
        serve.serve(serving, pair, 'small')


def test_a_folder_in_an_object_store_is_refused(make_bucket):
    from components.places import locate

    with pytest.raises(UsageError, match='takes a folder of this machine'):
        serve.serve(locate(make_bucket('s3')) / 'serving', (8500, 8501), 'small')
