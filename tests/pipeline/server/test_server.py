"""The small server from outside: every form of request, garbage, versions that change under load, and its end.

It is started as the serving check starts TensorFlow Serving: by the name `tensorflow_model_server`, with that server's
flags.
"""

import base64
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import psutil
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from components.places import locate
from components.serving import version_labels
from components.serving.models_config import CONFIG_FILE, MODEL_NAME
from tests.conftest import PROJECT
from tests.pipeline.server.small_model import encode_image, save_version, write_warmups

START_S = 120.0
BATCHING = """
max_batch_size { value: 64 } batch_timeout_micros { value: 2000 } max_enqueued_batches { value: 100 }
num_batch_threads { value: 2 } allowed_batch_sizes: [1, 4, 16, 64]
"""
MONITORING = 'prometheus_config { enable: true path: "/metrics" }'

NOTE_IMPORTS = """
import os, sys
leave = os._exit
def note(code):
    open(os.environ['IMPORTED'], 'w').write(' '.join(name for name, module in sys.modules.items() if module))
    leave(code)
os._exit = note
"""
"""Python runs this in the server before anything else; so it writes down in the end what it has imported."""


class Running(NamedTuple):
    """A server that runs."""

    process: subprocess.Popen
    url: str
    address: str
    said: Path
    """The file of its output."""

    @property
    def model(self) -> str:
        return f'{self.url}/v1/models/{MODEL_NAME}'

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + START_S
        while words not in (said := self.said.read_text()):
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)


def find_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def start(folder: Path, *flags: str) -> Iterator[Running]:
    """Starts `tensorflow_model_server` on free ports, and kills it in the end if it still runs."""
    binary, said = folder / 'tensorflow_model_server', folder / 'said.txt'
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline.server "$@"\n')
    binary.chmod(0o755)
    ports = find_port(), find_port()
    command = [str(binary), f'--port={ports[0]}', f'--rest_api_port={ports[1]}', *flags]
    with said.open('w') as file:
        (folder / 'sitecustomize.py').write_text(NOTE_IMPORTS)
        environment = {**os.environ, 'PYTHONPATH': str(folder), 'IMPORTED': str(folder / 'imported.txt')}
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=file, stderr=subprocess.STDOUT)
    running = Running(process, f'http://127.0.0.1:{ports[1]}', f'127.0.0.1:{ports[0]}', said)
    try:
        yield running
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope='module')
def serving(tmp_path_factory) -> Path:
    """A serving folder with three versions, the first of them stable."""
    folder = tmp_path_factory.mktemp('serving')
    for number in (1, 2, 3):
        write_warmups(save_version(folder, number), [encode_image()])
    version_labels.promote(locate(str(folder)), 1, 'stable')
    return folder


@pytest.fixture(scope='module')
def server(serving, tmp_path_factory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp('server')
    (folder / 'batching.config').write_text(BATCHING)
    (folder / 'monitoring.config').write_text(MONITORING)
    flags = (
        f'--model_config_file={serving / CONFIG_FILE}',
        '--model_config_file_poll_wait_seconds=1',
        '--file_system_poll_wait_seconds=1',
        '--allow_version_labels_for_unavailable_models',
        '--enable_batching',
        f'--batching_parameters_file={folder / "batching.config"}',
        f'--monitoring_config_file={folder / "monitoring.config"}',
        '--rest_api_timeout_in_ms=4000',
    )
    with start(folder, *flags) as running:
        running.wait_for('\nready\n')
        yield running


def to_b64(image: bytes) -> dict[str, str]:
    return {'b64': base64.b64encode(image).decode()}


GREY = [0.2, 0.2, 0.2]  # of 51 / 255
IMAGE = encode_image(51)
ROW = {'label': 1, 'class_name': 'version 1', 'probabilities': pytest.approx(GREY)}
COLUMNS = {'label': [1], 'class_name': ['version 1'], 'probabilities': [pytest.approx(GREY)]}
PIXELS = np.full([8, 8, 3], 51, np.uint8)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ('body', 'expected'),
    [
        ({'instances': [to_b64(IMAGE)]}, {'predictions': [ROW]}),
        ({'instances': [{'image': to_b64(IMAGE)}] * 3}, {'predictions': [ROW] * 3}),
        ({'inputs': [to_b64(IMAGE)]}, {'outputs': COLUMNS}),
        ({'inputs': {'image': [to_b64(IMAGE)]}, 'signature_name': 'serving_default'}, {'outputs': COLUMNS}),
        ({'instances': [PIXELS.tolist()] * 2, 'signature_name': 'serving_raw'}, {'predictions': [ROW] * 2}),
        (
            {'instances': [{'image': to_b64(IMAGE), 'weight': 2}], 'signature_name': 'mix'},
            {'predictions': [pytest.approx(102)]},
        ),
        (
            {'inputs': {'image': [to_b64(IMAGE)], 'weight': [2]}, 'signature_name': 'mix'},
            {'outputs': [pytest.approx(102)]},
        ),
    ],
)
@pytest.mark.parametrize('which', ['', '/versions/1', '/labels/stable'])
def test_each_form_of_a_rest_request_is_answered(which, body, expected, server):
    response = requests.post(f'{server.model}{which}:predict', json=body, timeout=30)
    assert response.status_code == 200, response.text
    assert response.json() == expected
    assert response.headers['X-Model-Version'] == '1'
    assert response.headers['Content-Type'] == 'application/json'


CLASSIFY = {'examples': [{'image': to_b64(IMAGE)}]}
REFUSED = [
    ('POST', ':predict', {'instances': [to_b64(b'broken')]}, 400, 'Unknown image file format'),
    ('POST', ':predict', {'instances': [to_b64(IMAGE)] * 4 + [to_b64(b'broken')]}, 400, 'row 4 of 5: Unknown image'),
    ('POST', ':predict', {'instances': [to_b64(IMAGE)], 'signature_name': 'x'}, 400,
     'Serving signature name: "x" not found in signature def'),
    ('POST', ':predict', {'instances': [to_b64(IMAGE)] * 65}, 400,
     'Task size 65 is larger than maximum input batch size 64'),
    ('POST', ':predict', {'inputs': 'text'}, 400, 'to have the shape [-1]'),
    ('POST', ':predict', {'instances': [[1]], 'signature_name': 'serving_raw'}, 400, 'to have the shape [-1, 8, 8, 3]'),
    ('POST', '/labels/other:predict', {'instances': [1]}, 400, 'Unrecognized servable version label: other'),
    ('POST', '/versions/9:predict', {'instances': [1]}, 404, 'Servable not found for request: Specific(cifar10, 9)'),
    ('POST', '/versions/99999999999999999999:predict', {}, 400, 'to numeric'),
    ('POST', 'x:predict', {'instances': [1]}, 404, 'Servable not found for request: Latest(cifar10x)'),
    ('POST', ':classify', CLASSIFY, 400, 'Expected one or two output Tensors, found 3'),
    ('POST', ':classify', {**CLASSIFY, 'signature_name': 'mix'}, 400, 'Expected one input Tensor.'),
    ('POST', ':regress', CLASSIFY, 400, 'Expected one output Tensor.'),
    ('POST', '', {}, 400, 'Malformed request: POST /v1/models/cifar10'),
    ('PUT', ':predict', {}, 400, 'Malformed request: PUT /v1/models/cifar10:predict'),
    ('GET', 'x', None, 404, 'Could not find any versions of model cifar10x'),
    ('GET', '/versions/9', None, 404, 'Could not find version 9 of model cifar10'),
    ('GET', '/labels/other/metadata', None, 400, 'Unrecognized servable version label: other'),
]  # fmt: skip


@pytest.mark.parametrize(('method', 'path', 'body', 'status', 'words'), REFUSED)
def test_a_rest_request_is_refused_in_tensorflow_servings_words(method, path, body, status, words, server):
    response = requests.request(method, f'{server.model}{path}', json=body, timeout=30)
    assert response.status_code == status
    assert words in response.json()['error']


def test_status_and_metadata_are_those_of_tensorflow_serving(server):
    ok = {'error_code': 'OK', 'error_message': ''}
    expected = {'model_version_status': [{'version': '1', 'state': 'AVAILABLE', 'status': ok}]}
    for path in ('', '/versions/1', '/labels/stable'):
        assert requests.get(f'{server.model}{path}', timeout=30).json() == expected
    metadata = requests.get(f'{server.model}/metadata', timeout=30).json()
    assert metadata['model_spec'] == {'name': MODEL_NAME, 'signature_name': '', 'version': '1'}
    signatures = metadata['metadata']['signature_def']['signature_def']
    assert signatures['mix']['method_name'] == 'tensorflow/serving/predict'
    image = signatures['serving_raw']['inputs']['image']
    assert image['dtype'] == 'DT_UINT8'
    assert [size['size'] for size in image['tensor_shape']['dim']] == ['-1', '8', '8', '3']


def test_other_paths_are_not_found(server):
    assert requests.get(f'{server.url}/other', timeout=30).status_code == 404
    assert requests.get(f'{server.url}/v1/models', timeout=30).json() == {'error': 'Missing model name in request.'}


@pytest.fixture(scope='module')
def channel(server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, [('grpc.enable_http_proxy', 0)]) as made:
        yield made


@pytest.fixture
def stub(channel) -> prediction_service_pb2_grpc.PredictionServiceStub:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def make_request(inputs: dict[str, np.ndarray], name: str = MODEL_NAME, **spec) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for key, value in spec.items():
        if key == 'version':
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, key, value)
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


@pytest.mark.parametrize(
    'spec', [{}, {'version': 1}, {'version_label': 'stable'}, {'signature_name': 'serving_default'}]
)
def test_a_grpc_request_is_answered(spec, stub):
    response = stub.Predict(make_request({'image': [IMAGE, IMAGE]}, **spec), timeout=30)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (MODEL_NAME, 1, 'serving_default')
    outputs = {key: tf.make_ndarray(tensor).tolist() for key, tensor in response.outputs.items()}
    assert outputs == {
        'label': [1, 1],
        'class_name': [b'version 1'] * 2,
        'probabilities': [pytest.approx(GREY)] * 2,
    }
    assert list(response.outputs['probabilities'].float_val) == pytest.approx(GREY * 2)


def test_a_grpc_request_gets_the_outputs_that_it_names(stub):
    request = make_request({'image': PIXELS[None]}, signature_name='serving_raw')
    request.output_filter.append('label')
    assert list(stub.Predict(request, timeout=30).outputs) == ['label']
    request.output_filter[:] = ['other']
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=30)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert 'expected to be in the set {class_name,label,probabilities}.' in caught.value.details()


GRPC_REFUSED = [
    (make_request({'image': [IMAGE, b'broken']}), 'INVALID_ARGUMENT', 'row 1 of 2: Unknown image file format'),
    (make_request({'image': [IMAGE]}, name='x'), 'NOT_FOUND', 'Servable not found for request: Latest(x)'),
    (make_request({'image': [IMAGE]}, name=''), 'INVALID_ARGUMENT', 'ModelSpec has no name specified.'),
    (predict_pb2.PredictRequest(), 'INVALID_ARGUMENT', 'Missing ModelSpec'),
    (make_request({'image': [IMAGE]}, version=9), 'NOT_FOUND', 'Specific(cifar10, 9)'),
    (make_request({'image': [IMAGE]}, version_label='x'), 'INVALID_ARGUMENT', 'Unrecognized servable version label: x'),
    (make_request({'image': [IMAGE]}, signature_name='x'), 'FAILED_PRECONDITION', 'signature key "x" not found.'),
    (make_request({'picture': [IMAGE]}), 'INVALID_ARGUMENT', 'Sent extra: {picture}. Missing but required: {image}.'),
    (make_request({}), 'INVALID_ARGUMENT', 'input size does not match signature: 0!=1'),
    (make_request({'image': [1.0]}), 'INVALID_ARGUMENT', 'to be string but float32 is provided'),
    (make_request({'image': [[IMAGE]]}), 'INVALID_ARGUMENT', 'to have the shape [-1]'),
]  # fmt: skip


@pytest.mark.parametrize(('request_', 'code', 'words'), GRPC_REFUSED)
def test_a_grpc_request_is_refused_in_tensorflow_servings_words(request_, code, words, stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request_, timeout=30)
    assert caught.value.code().name == code
    assert words in caught.value.details()


def test_the_other_grpc_calls(channel, stub):
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=['signature_def'])
    asked.model_spec.name = MODEL_NAME
    found = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(asked, timeout=30).metadata['signature_def'].Unpack(found)
    assert set(found.signature_def) == {'serving_default', 'serving_raw', 'mix'}
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = MODEL_NAME
    assert [each.version for each in models.GetModelStatus(status, timeout=30).model_version_status] == [1]
    refused = {
        models.HandleReloadConfigRequest: (model_management_pb2.ReloadConfigRequest(), 'UNIMPLEMENTED'),
        stub.MultiInference: (inference_pb2.MultiInferenceRequest(), 'INVALID_ARGUMENT'),
        stub.Classify: (classification_pb2.ClassificationRequest(model_spec=asked.model_spec), 'INVALID_ARGUMENT'),
    }
    for call, (request, code) in refused.items():
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=30)
        assert caught.value.code().name == code


def test_the_metrics_have_tensorflow_servings_names(server):
    requests.post(f'{server.model}:predict', json={'instances': [to_b64(IMAGE)]}, timeout=30)
    requests.post(f'{server.url}/v1/models/unknown:predict', json={'instances': [1]}, timeout=30)
    lines = requests.get(f'{server.url}/metrics', timeout=30).text
    for words in (
        ':tensorflow:serving:request_count{model_name="cifar10",status="OK"}',
        ':tensorflow:serving:request_latency_bucket{API="Predict",entrypoint="REST",le="10.0",model_name="cifar10"}',
        ':tensorflow:serving:runtime_latency_count{API="Predict"',
        ':tensorflow:serving:batching_session:queuing_latency_count',
    ):
        assert words in lines
    assert 'unknown' not in lines, 'a client cannot add series'


# Garbage.


def send_raw(server: Running, data: bytes, *, half_close: bool = False, wait_s: float = 8.0) -> bytes:
    """Sends bytes to the REST port, and returns all that comes back until the server hangs up or is silent."""
    host, port = server.url.removeprefix('http://').split(':')
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b''
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := connection.recv(65536):
                answer += part
                if b'\r\n\r\n' in answer:
                    break
    return answer


def make_post(body: bytes, length: int | None = None, path: str = f'/v1/models/{MODEL_NAME}:predict') -> bytes:
    head = f'POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n'
    return head.encode() + body


def send_garbage(server: Running, stub, seed: int) -> str:
    """Sends one piece of garbage, and returns what it was and the code that came back, as the documents list them."""
    random_ = random.Random(seed)
    noise = random_.randbytes(random_.randint(1, 2000))
    kind = seed % 10
    if kind == 0:
        answer = requests.post(f'{server.model}:predict', data=noise, timeout=30)
        return f'random body {answer.status_code}'
    if kind == 1:
        cut = IMAGE[: random_.randint(1, len(IMAGE) - 13)]
        answer = requests.post(f'{server.model}:predict', json={'instances': [to_b64(cut)]}, timeout=30)
        return f'truncated image {answer.status_code}'
    if kind == 2:
        shape = [random_.randint(0, 3) for _ in range(random_.randint(1, 4))]
        body = {'instances': np.zeros([1, *shape]).tolist(), 'signature_name': 'serving_raw'}
        return f'wrong shape {requests.post(f"{server.model}:predict", json=body, timeout=30).status_code}'
    if kind == 3:
        body = {'instances': [to_b64(IMAGE)], 'signature_name': noise[:20].hex()}
        return f'unknown signature {requests.post(f"{server.model}:predict", json=body, timeout=30).status_code}'
    if kind == 4:
        answer = send_raw(server, make_post(b'{', length=random_.randint(1 << 30, 1 << 62)))
        return f'huge declared body {answer[9:12].decode()}'
    if kind == 5:
        answer = send_raw(server, noise.replace(b'\n', b'') + b'\r\n\r\n')
        return f'random bytes {answer[9:12].decode()}'
    if kind == 6:
        body = json.dumps({'instances': [to_b64(IMAGE)]}).encode()
        answer = send_raw(server, make_post(body), half_close=True)
        return f'half-closed socket {answer[9:12].decode()}'
    request = make_request({'image': [IMAGE]})
    if kind == 7:
        tensor = request.inputs['image']
        tensor.Clear()
        tensor.dtype = random_.randint(0, 120)
        for _ in range(random_.randint(1, 4)):
            tensor.tensor_shape.dim.add(size=random_.randint(-2, 1 << 40))
        tensor.tensor_content = noise[:100]
        tensor.string_val.append(b'x')
    elif kind == 8:
        request.inputs['image'].CopyFrom(
            tf.make_tensor_proto(np.zeros([1], random_.choice(['float32', 'int64', 'bool'])))
        )
    else:
        request.inputs['image'].string_val[0] = noise
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=30)
    return f'{("huge declared tensor", "wrong type", "random image")[kind - 7]} {caught.value.code().name}'


EXPECTED = {
    'random body 400',
    'truncated image 400',
    'wrong shape 400',
    'unknown signature 400',
    'huge declared body 413',
    'random bytes 400',
    'half-closed socket 200',
    'huge declared tensor INVALID_ARGUMENT',
    'wrong type INVALID_ARGUMENT',
    'random image INVALID_ARGUMENT',
}


def test_500_pieces_of_garbage_are_answered_with_their_codes_and_cost_no_memory(server, stub):
    process = psutil.Process(server.process.pid)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda seed: send_garbage(server, stub, seed), range(1000, 1100)))
        before = process.memory_info().rss
        found = Counter(threads.map(lambda seed: send_garbage(server, stub, seed), range(500)))
    assert set(found) == EXPECTED, found
    assert set(found.values()) == {50}
    grown = (process.memory_info().rss - before) / 1e6
    assert grown < 50, f'{grown:.0f} MB'
    test_each_form_of_a_rest_request_is_answered('', {'instances': [to_b64(IMAGE)]}, {'predictions': [ROW]}, server)


def test_a_message_that_is_no_protobuf_or_too_large_is_refused(channel):
    call = channel.unary_unary('/tensorflow.serving.PredictionService/Predict')
    for data, code in ((b'\xff' * 50, 'INTERNAL'), (bytes(70 << 20), 'RESOURCE_EXHAUSTED')):
        with pytest.raises(grpc.RpcError) as caught:
            call(data, timeout=30)
        assert caught.value.code().name == code


def test_slow_clients_are_not_waited_for_and_hold_up_nobody(server):
    with ThreadPoolExecutor(20) as threads:
        slow = [threads.submit(send_raw, server, make_post(b'{"inst', length=100)) for _ in range(20)]
        time.sleep(0.5)
        response = requests.post(f'{server.model}:predict', json={'instances': [to_b64(IMAGE)]}, timeout=3)
        assert response.status_code == 200
        answers = [each.result() for each in slow]
    assert {answer[9:12] for answer in answers} == {b'408'}


def test_a_socket_that_is_closed_half_way_gets_no_answer_and_does_no_harm(server):
    assert send_raw(server, make_post(b'{"inst', length=100), half_close=True) == b''
    assert requests.get(server.model, timeout=30).status_code == 200


# Versions that change under load.


def test_no_request_fails_while_versions_are_promoted_and_rolled_back(server, serving):
    folder = locate(str(serving))
    stopped = threading.Event()
    answers: Counter[int] = Counter()

    def ask() -> None:
        body = {'instances': [to_b64(IMAGE)]}
        with requests.Session() as session:
            while not stopped.is_set():
                response = session.post(f'{server.model}/labels/stable:predict', json=body, timeout=30)
                assert response.status_code == 200, response.text
                (row,) = response.json()['predictions']
                assert response.headers['X-Model-Version'] == str(row['label']), 'the version says who answers'
                answers[row['label']] += 1

    with ThreadPoolExecutor(16) as threads:
        clients = [threads.submit(ask) for _ in range(16)]
        try:
            for turn in range(10):
                version_labels.promote(folder, 2 + turn % 2, 'stable', server=server.url)
                time.sleep(0.2)
                version_labels.rollback(folder)
                assert not [client for client in clients if client.done()]
        finally:
            stopped.set()
        for client in clients:
            client.result()
    assert set(answers) <= {1, 2, 3}
    assert len(answers) > 1, 'the promotions took effect'


# How it starts and ends.


def run(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', 'pipeline.server', *flags]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=START_S, check=False)


def test_flags_that_cannot_be_taken_are_refused_by_name():
    ended = run('--ssl_config_file=x')
    assert ended.returncode == 2
    assert ended.stderr == (
        'error: --ssl_config_file is a flag of TensorFlow Serving that this small server does not have.\n'
    )


def test_a_port_in_use_and_a_missing_folder_are_one_sentence(server, tmp_path):
    ports = server.address.split(':')[1], server.url.rsplit(':', 1)[1]
    for flags, words in (
        (f'--port={ports[0]} --model_base_path={tmp_path}', f'--port: 127.0.0.1:{ports[0]} cannot be listened on'),
        (f'--port=0 --rest_api_port={ports[1]} --model_base_path={tmp_path}', '--rest_api_port: 127.0.0.1:'),
        (f'--port=0 --model_base_path={tmp_path}/none', '--model_base_path takes the folder of versions'),
    ):
        ended = run(*flags.split())
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert line.startswith(f'error: {words}')


def test_the_last_request_is_answered_before_the_server_ends_and_tensorflow_alone_served(server):
    # The last test of the module's server, which it ends.
    with socket.create_connection(('127.0.0.1', int(server.url.rsplit(':', 1)[1])), timeout=10) as connection:
        body = json.dumps({'instances': [to_b64(IMAGE)]}).encode()
        request = make_post(body)
        connection.sendall(request[:-5])
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(request[-5:])
        assert connection.recv(65536).startswith(b'HTTP/1.1 200')
    assert server.process.wait(10) == 0
    said = server.said.read_text()
    assert 'is not TensorFlow Serving' in said
    assert said.endswith('stopped\n')
    assert 'Traceback' not in said
    imported = set((server.said.parent / 'imported.txt').read_text().split())
    assert {'tensorflow', 'uvicorn', 'pipeline.server.rest'} <= imported
    assert not {'keras', 'tfx', 'apache_beam', 'pipeline.pipeline'} & imported, 'TensorFlow alone serves'
