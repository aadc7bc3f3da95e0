"""Model servers that do as a test tells them, for the client: they refuse, are late, or do not know a signature."""

import base64
import concurrent.futures
import http.server
import json
import re
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from components.contract import DataContract
from components.data import cifar10

BROKEN = b'broken'
NEWEST, STABLE = 12, 7  # the versions that are served
_HTTP = {
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INTERNAL: 500,
}
Step = grpc.StatusCode | float
"""What a server does with a request in place of an answer: it refuses it, or waits some seconds before it answers."""


class _Refusal(Exception):
    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


class FakeServer:
    """Says of an image b'3...' that it shows class 3, and of BROKEN that it is none.

    Args:
      protocol: the only one that it speaks.
      has_safe: whether its model has the signature that answers for each image of a batch.
      has_names: whether its model has the signature that says the names of the classes.
      contract: its model's.
      max_batch_size: of the server.
      names_version: whether REST answers say which version has answered.
      port: 0 for a free one.
      certificate: files of the key and the certificate, for TLS.
    """

    def __init__(
        self,
        protocol: Literal['rest', 'grpc'],
        *,
        has_safe: bool = True,
        has_names: bool = True,
        contract: DataContract = cifar10.CONTRACT,
        names_version: bool = True,
        max_batch_size: int = 1000,
        port: int = 0,
        certificate: tuple[str, str] | None = None,
    ):
        self.has_safe, self.has_names, self.contract, self.names_version = has_safe, has_names, contract, names_version
        self.max_batch_size = max_batch_size
        self.plan: list[Step] = []  # what to do with the next requests
        self.asked: list[tuple[str, int]] = []  # signature and number of images or labels of each request
        self.connections = 0
        start = self._start_rest if protocol == 'rest' else self._start_grpc
        self.port = start(port, certificate)

    def choose(self, label: str | None, version: int | None) -> int:
        """Returns the version that is asked for."""
        if label not in (None, 'stable'):
            raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, f'Unrecognized servable version label: {label}.')
        return version or (STABLE if label else NEWEST)

    def list_signatures(self) -> list[str]:
        """Returns the names of the model's signatures."""
        optional = {'serving_default_safe': self.has_safe, 'class_names': self.has_names}
        return ['serving_default', 'serving_raw', *(name for name, is_there in optional.items() if is_there)]

    def answer(
        self, signature: str, asked: list[Any], label: str | None, version: int | None
    ) -> tuple[int, dict[str, Any]]:
        """Returns the version, and the outputs as arrays."""
        self.asked.append((signature, len(asked)))
        step = self.plan.pop(0) if self.plan else 0.0
        if isinstance(step, grpc.StatusCode):
            raise _Refusal(step, 'as the test has it')
        time.sleep(step)
        if signature not in self.list_signatures():
            raise _Refusal(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
        if len(asked) > self.max_batch_size:
            raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, 'Task size is larger than maximum input batch size')
        names = self.contract.class_names
        if signature == 'class_names':
            return self.choose(label, version), {'class_name': np.array([names[each] for each in asked], object)}
        is_safe = signature != 'serving_default'
        if BROKEN in asked and not is_safe:
            raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, 'Unknown image file format.')
        labels = [-1 if image == BROKEN else int(image[:1]) for image in asked]
        outputs = {
            'label': np.array(labels, np.int64),
            'class_name': np.array(['' if each < 0 else names[each] for each in labels], object),
            'probabilities': np.eye(len(names), dtype=np.float32)[labels] * 0.5 + 0.5 / len(names),
        }
        if is_safe:
            outputs['error'] = np.array(['it is broken' if each < 0 else '' for each in labels], object)
        return self.choose(label, version), outputs

    def close(self) -> None:
        """Stops it, and closes its connections."""
        self._stop()

    def _start_grpc(self, port: int, certificate: tuple[str, str] | None) -> int:
        owner = self

        class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
            def GetModelMetadata(self, request, context):
                spec, signatures = request.model_spec, get_model_metadata_pb2.SignatureDefMap()
                try:
                    owner.choose(spec.version_label or None, spec.version.value or None)
                except _Refusal as refusal:
                    context.abort(refusal.code, str(refusal))
                for name in owner.list_signatures():
                    signatures.signature_def[name].method_name = 'tensorflow/serving/predict'
                image = signatures.signature_def['serving_raw'].inputs['image']
                for size in (-1, *owner.contract.image_shape):
                    image.tensor_shape.dim.add(size=size)
                response = get_model_metadata_pb2.GetModelMetadataResponse()
                response.metadata['signature_def'].Pack(signatures)
                return response

            def Predict(self, request, context):
                spec = request.model_spec
                (asked,) = map(tf.make_ndarray, request.inputs.values())
                label, version = spec.version_label or None, spec.version.value or None
                response = predict_pb2.PredictResponse()
                try:
                    number, outputs = owner.answer(spec.signature_name, list(asked), label, version)
                except _Refusal as refusal:
                    context.abort(refusal.code, str(refusal))
                response.model_spec.version.value = number
                for name, value in outputs.items():
                    response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
                return response

        server = grpc.server(concurrent.futures.ThreadPoolExecutor(), options=[('grpc.so_reuseport', 0)])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
        if certificate:
            contents = [Path(file).read_bytes() for file in certificate]
            bound = server.add_secure_port(f'localhost:{port}', grpc.ssl_server_credentials([tuple(contents)]))
        else:
            bound = server.add_insecure_port(f'127.0.0.1:{port}')
        server.start()
        self._stop = lambda: server.stop(None).wait()
        return bound

    def _start_rest(self, port: int, certificate: tuple[str, str] | None) -> int:
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def setup(self):
                super().setup()
                owner.connections += 1

            def send(self, status: int, content: dict, version: int | None = None) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header('Content-Length', str(len(body)))
                if version and owner.names_version:
                    self.send_header('X-Model-Version', str(version))
                self.end_headers()
                self.wfile.write(body)

            def read_path(self, end: str) -> tuple[str | None, int]:
                pattern = rf'/v1/models/cifar10(?:/labels/(\w+)|/versions/(\d+))?{end}'
                label, version = re.fullmatch(pattern, self.path).groups()
                return label, int(version or 0)

            def do_GET(self):
                try:
                    version = owner.choose(*self.read_path('/metadata'))
                except _Refusal as refusal:
                    self.send(_HTTP[refusal.code], {'error': str(refusal)})
                    return
                signatures: dict[str, Any] = {name: {} for name in owner.list_signatures()}
                shape = [{'size': str(size)} for size in (-1, *owner.contract.image_shape)]
                signatures['serving_raw'] = {'inputs': {'image': {'tensor_shape': {'dim': shape}}}}
                metadata = {'signature_def': {'signature_def': signatures}}
                self.send(200, {'model_spec': {'version': str(version)}, 'metadata': metadata})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
                label, version = self.read_path(':predict')
                (rows,) = body['inputs'].values()
                asked = [base64.b64decode(row['b64']) if isinstance(row, dict) else row for row in rows]
                try:
                    number, outputs = owner.answer(body['signature_name'], asked, label, version)
                except _Refusal as refusal:
                    self.send(_HTTP[refusal.code], {'error': str(refusal)})
                else:
                    lists = {name: value.tolist() for name, value in outputs.items()}
                    only = next(iter(lists.values()))  # has no name in REST
                    self.send(200, {'outputs': lists if len(lists) > 1 else only}, number)

            def log_message(self, *arguments):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass  # a client that did not wait

        server = Server(('127.0.0.1', port), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate[1], certificate[0])
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

        def stop() -> None:
            server.shutdown()
            server.server_close()

        self._stop = stop
        return server.server_port


def find_free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]
