"""Fixtures that the tests share: data in every form, a Transform graph, object stores, a file server, the CLI."""

import http.server
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from components.environment import choose_variables

os.environ.update(choose_variables())
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')

import numpy as np
import pytest
import tfx  # noqa: F401  (must come before TFDV 1.16, which lacks a module that TFX replaces)

from components.data import cifar10, sample

PROJECT = Path(__file__).parents[1]
REAL_ARCHIVE = PROJECT.parent / 'shared' / 'cifar10' / 'cifar-10-binary-12k.tar.gz'
IMAGE_SIZE = 32  # pixels; the smallest that the real ResNet50 takes


def run_cli(*arguments: str | Path, timeout_s: float = 600, folder: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """Runs `python -m pipeline` as a user does, in a process of its own.

    Returns:
      How it ended. Its standard error is without the indented lines that a command on a busy machine adds every 30
      seconds to say what it is doing.
    """
    command = [sys.executable, '-m', 'pipeline', *map(str, arguments)]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False)
    answer.stderr = re.sub(r'^ {4}.* (?:so far|left)\n', '', answer.stderr, flags=re.MULTILINE)
    return answer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts files with whole runs first, so that no worker starts one when the others have nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker('slow') is None)


@pytest.fixture(scope='session')
def real_archive() -> Path:
    """12,000 real CIFAR-10 images in the official layout."""
    if not REAL_ARCHIVE.exists():
        pytest.skip(f'needs real CIFAR-10 images at {REAL_ARCHIVE.parent}, which are not part of the project')
    return REAL_ARCHIVE


def write_archive(path: Path, batches: Iterable[cifar10.BatchFile]) -> None:
    """Writes an archive in the official layout."""
    with tarfile.open(path, 'w:gz') as tar:
        for batch in batches:
            tar.add(batch.path, f'cifar-10-batches-bin/{batch.path.name}')


@pytest.fixture(scope='session')
def sample_archive(tmp_path_factory) -> Path:
    """An archive with the embedded sample: 100 training and 20 test images."""
    folder = tmp_path_factory.mktemp('archive')
    path = folder / 'sample.tar.gz'
    write_archive(path, sample.write_sample(folder, train=100, test=20, seed=1))
    return path


@pytest.fixture(scope='session')
def sample_data(sample_archive, tmp_path_factory) -> Path:
    """The sample archive as TFRecords."""
    from components.data.manifest import Source
    from components.data.tfrecords import write_dataset
    from pipeline.config import BeamConfig

    out = tmp_path_factory.mktemp('data') / 'sample'
    source = Source(kind='archive', name=sample_archive.name, sha256='0' * 64)
    batches = cifar10.extract_batches(sample_archive, tmp_path_factory.mktemp('batches'))
    write_dataset(batches, out, source, limit=None, beam_args=BeamConfig().options)
    return out


@pytest.fixture(scope='session')
def make_transform_graph(tmp_path_factory):
    """Makes the Transform graph of a backbone, once for each backbone and size."""
    from benchmarks.models import write_transform_graph

    made: dict[tuple, Path] = {}

    def make(backbone: str = 'resnet50', image_size: int = IMAGE_SIZE, resize: str = 'bilinear') -> Path:
        key = (backbone, image_size, resize)
        if key not in made:
            out = tmp_path_factory.mktemp('transform')
            write_transform_graph(str(out), image_size, backbone=backbone, resize=resize)
            made[key] = out
        return made[key]

    return make


@pytest.fixture(scope='session')
def transform_graph(make_transform_graph) -> Path:
    """ResNet50's Transform graph at IMAGE_SIZE."""
    return make_transform_graph()


@pytest.fixture(scope='module')
def model():
    """ResNet50 at IMAGE_SIZE with a small head and random weights, as a Keras model."""
    import keras

    from components import features
    from trainer.config import TrainerConfig
    from trainer.model import build_backbone, build_model

    keras.utils.set_random_seed(0)
    config = TrainerConfig(image_size=IMAGE_SIZE, head_units=(16,))
    model = build_model(config, build_backbone(config), 10)
    # Random weights give every image nearly the same probabilities; a steeper last layer makes them differ.
    head = model.get_layer(features.OUTPUT_PROBABILITIES)
    head.set_weights([head.get_weights()[0] * 50, head.get_weights()[1]])
    return model


@pytest.fixture(scope='module')
def transform_output(transform_graph):
    """ResNet50's Transform graph at IMAGE_SIZE, loaded."""
    import tensorflow_transform as tft

    return tft.TFTransformOutput(str(transform_graph))


@pytest.fixture
def images() -> np.ndarray:
    """Ten sample images, one of each class: uint8 [10, 32, 32, 3]."""
    random = np.random.default_rng(3)
    return np.stack([sample.draw_image(label, random) for label in range(10)])


@pytest.fixture(scope='session')
def object_stores() -> Iterator[dict[str, str]]:
    """Emulates S3 and Cloud Storage; gives the environment variables that lead boto3 and Google's client there."""
    from gcp_storage_emulator.server import create_server
    from moto.server import ThreadedMotoServer

    s3 = ThreadedMotoServer('127.0.0.1', port=0)
    s3.start()
    with socket.create_server(('127.0.0.1', 0)) as probe:
        port = probe.getsockname()[1]
    gs = create_server('127.0.0.1', port, in_memory=True)
    gs.start()
    yield {
        'AWS_ENDPOINT_URL': 'http://{}:{}'.format(*s3.get_host_and_port()),
        'AWS_ACCESS_KEY_ID': 'key',
        'AWS_SECRET_ACCESS_KEY': 'secret',
        'AWS_DEFAULT_REGION': 'us-east-1',
        'STORAGE_EMULATOR_HOST': f'http://127.0.0.1:{port}',
        'NO_GCE_CHECK': 'true',  # without it Google's client waits for a metadata server
    }
    gs.stop()
    s3.stop()


@pytest.fixture
def make_bucket(object_stores, monkeypatch):
    """Makes a new bucket for a scheme, 's3' or 'gs', and returns its URI."""
    for name, value in object_stores.items():
        monkeypatch.setenv(name, value)

    def make(scheme: str) -> str:
        import boto3
        from google.cloud import storage

        name = uuid.uuid4().hex
        if scheme == 's3':
            boto3.client('s3').create_bucket(Bucket=name)
        else:
            storage.Client.create_anonymous_client().create_bucket(name)
        return f'{scheme}://{name}'

    return make


@pytest.fixture(params=['path', 's3', 'gs'])
def place(request, tmp_path):
    """An empty folder: on this machine, in S3, and in Cloud Storage."""
    if request.param == 'path':
        return tmp_path / 'place'
    from components.places import locate

    return locate(request.getfixturevalue('make_bucket')(request.param)) / 'place'


class FileServer:
    """A local HTTP server with one file. It can resume a download, refuse a request, and break off an answer."""

    def __init__(self, content: bytes):
        self.content = content
        self.break_after: list[int] = []  # bytes to send before it breaks off, an entry for each request
        self.statuses: list[int] = []  # HTTP statuses to refuse requests with, an entry for each
        self.ranges: list[str | None] = []  # the Range header of each request
        self.can_resume = True
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                owner.answer(self)

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.base_url = f'http://127.0.0.1:{self._server.server_port}/'
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        asked = request.headers.get('Range')
        self.ranges.append(asked)
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        start = int(asked.removeprefix('bytes=').removesuffix('-')) if asked and self.can_resume else 0
        body = self.content[start:]
        request.send_response(206 if start else 200)
        request.send_header('Content-Length', str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.break_after.pop(0)] if self.break_after else body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve_file():
    """Starts a FileServer with the given bytes."""
    servers = []

    def start(content: bytes) -> FileServer:
        servers.append(FileServer(content))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
