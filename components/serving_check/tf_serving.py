"""A real TensorFlow Serving, if there is one: it is started on free local ports, asked over REST and gRPC, and stopped.

TFX's own runner for Docker (infra_validator/model_server_runners) is not used, because it pulls an image that is
missing, and its interface does not tell which port it publishes for REST.
"""

import base64
import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
import numpy as np
import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from components.serving.model_servers import ModelServer
from components.serving_check.probe import (
    Array,
    Fault,
    Response,
    Sample,
    check_broken,
    check_safe,
    check_signature,
    make_fault,
)

_LOAD_TIMEOUT_S = 300.0
_REQUEST_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.2
_MAX_REST_NUMBERS = 1_000_000  # of a request's pixels: as JSON they take some four bytes each

_REFUSALS = (requests.RequestException, grpc.RpcError)  # errors that the server reports, or of the connection


_Put = Callable[[str, dict[str, Any], Array], Response]  # signature, request, batch


class ServerError(Exception):
    """A server did not load the model."""


def find_free_ports(count: int) -> list[int]:
    """Finds ports of this machine on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(('127.0.0.1', 0))
        return [each.getsockname()[1] for each in sockets]


class Client:
    """Sends batches to a model on a server of this machine, without the proxies that the environment may name."""

    def __init__(self, model_name: str, rest_port: int, grpc_port: int):
        self._name, self._ports = model_name, (rest_port, grpc_port)
        self._url = f'http://127.0.0.1:{rest_port}/v1/models/{model_name}'
        self._session = requests.Session()
        self._session.trust_env = False
        self._channel = grpc.insecure_channel(f'127.0.0.1:{grpc_port}', [('grpc.enable_http_proxy', 0)])
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def clone(self) -> 'Client':
        """Makes a client of the same server with connections of its own, for a different thread."""
        return Client(self._name, *self._ports)

    def connect(self) -> None:
        """Connects to both ports; otherwise the first request does so."""
        grpc.channel_ready_future(self._channel).result(timeout=_REQUEST_TIMEOUT_S)
        self.read_states()

    def read_states(self) -> list[dict[str, Any]]:
        """Returns the state of each version of the model on the server; [] while the server does not respond."""
        try:
            response = self._session.get(self._url, timeout=_REQUEST_TIMEOUT_S)
            states: list[dict[str, Any]] = response.json().get('model_version_status', [])
        except requests.RequestException:
            return []
        return states

    def ask_rest(self, signature: str, request: dict[str, Any], batch: Array) -> Response:
        """Sends a batch in the form that curl would: row by row, bytes in base64."""
        is_bytes = batch.dtype == object
        rows = [{'b64': base64.b64encode(row).decode()} for row in batch] if is_bytes else batch.tolist()
        body = {'signature_name': signature, 'instances': rows}
        response = self._session.post(f'{self._url}:predict', json=body, timeout=_REQUEST_TIMEOUT_S)
        response.raise_for_status()
        columns = {}
        for key, first in (predictions := response.json()['predictions'])[0].items():
            values = [row[key] for row in predictions]
            if isinstance(first, str):
                columns[key] = np.array([value.encode() for value in values], object)
            else:
                columns[key] = np.array(values, np.int64 if key == request['label'] else np.float32)
        return columns

    def ask_grpc(self, signature: str, request: dict[str, Any], batch: Array) -> Response:
        """Sends a batch in the form that a program would: as tensors, which are returned as tensors."""
        (key, _) = request['inputs'][signature]
        message = predict_pb2.PredictRequest()
        message.model_spec.name, message.model_spec.signature_name = self._name, signature
        message.inputs[key].CopyFrom(tf.make_tensor_proto(batch))
        response = self._stub.Predict(message, timeout=_REQUEST_TIMEOUT_S)
        return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}

    def close(self) -> None:
        """Closes the connections."""
        self._channel.close()
        self._session.close()


@contextlib.contextmanager
def run_server(server: ModelServer, versions: Path, model_name: str, flags: Sequence[str] = ()) -> Iterator[Client]:
    """Starts the server, waits until it has loaded the model, and stops it in the end, also after an error.

    Args:
      server: from `components.serving.model_servers`.
      versions: folder with the SavedModel under its number.
      model_name: name under which the server offers the model.
      flags: more flags for the server.

    Raises:
      ServerError: the server ended, cannot load the model, or takes too long.
    """
    rest_port, grpc_port = find_free_ports(2)
    ports = [f'--rest_api_port={rest_port}', f'--port={grpc_port}']
    model = [f'--model_name={model_name}', f'--model_base_path={versions}']
    command = [*server.make_command((rest_port, grpc_port), (versions,)), *ports, *model, *flags]
    client = Client(model_name, rest_port, grpc_port)
    log = versions.with_suffix('.log')
    with log.open('w') as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait_until_loaded(client, process, log)
        yield client
    finally:
        client.close()
        server.stop(process, _STOP_TIMEOUT_S)


def _wait_until_loaded(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for the model.

    Raises:
      ServerError: the server ended, cannot load the model, or takes too long.
    """
    deadline = time.monotonic() + _LOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = (log.read_text(errors='replace').splitlines() or [''])[-1]
            raise ServerError(f'it ended with code {process.returncode} before it had loaded the model: {said[:200]}')
        for version in client.read_states():
            if version['state'] == 'AVAILABLE':
                return
            if version['state'] == 'END':
                raise ServerError(f'it cannot load the model: {version.get("status", {}).get("error_message", "")}')
        time.sleep(_POLL_S)
    raise ServerError(f'it had not loaded the model after {_LOAD_TIMEOUT_S:.0f} s')


def _ask_all(client: Client, sample: Sample, request: dict[str, Any]) -> tuple[list[Fault], dict[str, float]]:
    """Sends each signature that it asks all images over both protocols; see `check_server` for what is returned.

    Of large images, fewer are sent as pixels in JSON.
    """
    failures: list[Fault] = []
    differences: dict[str, float] = {}
    for protocol, put in (('REST', client.ask_rest), ('gRPC', client.ask_grpc)):
        for signature, images in sample.inputs.items():
            if signature in (request['transform'][0], request['explain'][0]):  # too much JSON
                continue
            name = f'{signature} over {protocol}'

            def ask(batch: Array, put: _Put = put, signature: str = signature) -> Response:
                return put(signature, request, batch)

            size, most = request['batch_sizes'][-1], None
            if protocol == 'REST' and images.dtype != object:
                most = max(1, _MAX_REST_NUMBERS // images[0].size)
                size = min(size, most)
            expected = sample.probabilities[:most]
            faults, difference = check_signature(ask, name, images[:most], expected, [size], request, _REFUSALS)
            if difference is not None:
                differences[name] = difference
                if signature == request['safe'][0]:
                    faults = check_safe(ask, name, images, sample.broken[signature], request, _REFUSALS)
                elif signature in sample.broken:
                    faults = check_broken(ask, name, images, sample.broken[signature], _REFUSALS, _REFUSALS)
            failures += faults
    return failures, differences


def check_server(
    server: ModelServer, versions: Path, model_name: str, sample: Sample, request: dict[str, Any]
) -> tuple[list[Fault], dict[str, float]]:
    """Asks each signature that classifies, except for `explain`, over REST and gRPC, also with a broken image.

    Args:
      server: from `components.serving.model_servers`.
      versions: folder with the SavedModel under its number.
      model_name: name under which the server offers the model.
      sample: what to ask with.
      request: see `components.serving_check.probe`.

    Returns:
      The faults, and the differences by '<signature> over <protocol>', as `components.serving_check.probe` has them.
    """
    try:
        with run_server(server, versions, model_name) as client:
            return _ask_all(client, sample, request)
    except ServerError as error:
        return [make_fault('server', '', 1, detail=str(error))], {}
