"""The REST interface of TensorFlow Serving, as its http_rest_api_handler.cc answers it.

https://www.tensorflow.org/tfx/serving/api_rest describes it. Two things are added: an answer carries the header
X-Model-Version, and bodies are bounded (413, 503).
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis import get_model_metadata_pb2

from pipeline.server import page
from pipeline.server.answers import SIGNATURE_DEF, describe_metadata, describe_status, refuse_method
from pipeline.server.faults import ServiceError, refuse
from pipeline.server.models import DEFAULT_SIGNATURE
from pipeline.server.rest_json import parse_object, read_inputs, read_signature_name, write_outputs
from pipeline.server.service import Asked, Service
from pipeline.server.tensors import MAX_BYTES

VERSION_HEADER = 'X-Model-Version'
MAX_BODY_BYTES = MAX_BYTES * 4 // 3 + (1 << 20)  # base64 takes a third more than the bytes

_WHICH = r'(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?'
_PREDICTION = re.compile(rf'/v1/models/(?P<name>[^/:]+){_WHICH}:(?P<method>classify|regress|predict)', re.IGNORECASE)
_MODEL = re.compile(rf'/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?P<metadata>/metadata)?', re.IGNORECASE)
_LARGEST_VERSION = (1 << 63) - 1

_STATUSES = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""The HTTP status for each code, from TensorFlow Serving's http_server.cc."""


_THREADS = 64  # requests that are read, or wait for the model, at the same time
_MAX_HELD_BYTES = 4 * MAX_BODY_BYTES  # of all bodies that have come in part or in full


class _NotReadError(Exception):
    """A body that is not read to its end, with the HTTP status and the sentence that its client gets."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


def _make_response(content: bytes, status: int = 200, version: int | None = None) -> Response:
    headers = {} if version is None else {VERSION_HEADER: str(version)}
    return Response(content, status, headers, media_type='application/json')


def _make_error(message: str, status: int) -> Response:
    return _make_response(json.dumps({'error': message}, ensure_ascii=False).encode('utf-8', 'replace'), status)


def _read_which(match: re.Match[str]) -> tuple[str, int | None, str | None]:
    """Returns the name, the version and the label that a path names; None for what it does not name."""
    version, label = match['version'], match['label']
    if version is not None and (len(version) > 19 or int(version) > _LARGEST_VERSION):
        raise refuse(f'Failed to convert version: {version} to numeric.')
    return unquote(match['name']), None if version is None else int(version), None if label is None else unquote(label)


class RestInterface:
    """Answers the requests.

    Args:
      service: makes the answers.
      timeout_s: seconds within which a request must have come in full and been answered.
    """

    def __init__(self, service: Service, timeout_s: float):
        self._service = service
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, 'rest')
        self._held = 0  # bytes of bodies; only the event loop's thread changes it

    async def _read_body(self, request: Request) -> bytes:
        """Reads a body, but no more of it than is taken: what a client only declares costs no memory.

        Raises:
          _NotReadError: it is larger, or there are too many others.
          ClientDisconnect: the client has gone before it was complete.
        """
        declared = request.headers.get('content-length', '0')
        parts, size = [], 0
        try:
            if len(declared) > 18 or int(declared) > MAX_BODY_BYTES:
                raise _NotReadError(413, f'The body must have no more than {MAX_BODY_BYTES:,} bytes')
            async for part in request.stream():
                size += len(part)
                self._held += len(part)
                if size > MAX_BODY_BYTES:
                    raise _NotReadError(413, f'The body must have no more than {MAX_BODY_BYTES:,} bytes')
                if self._held > _MAX_HELD_BYTES:
                    raise _NotReadError(503, 'There are too many large requests at the same time; try again later')
                parts.append(part)
            return b''.join(parts)
        finally:
            self._held -= size

    async def _run(self, body: bytes, function: Callable[..., Response], *arguments: Any) -> Response:
        """Runs a function in a thread; its body counts as held until it has ended."""
        self._held += len(body)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        finally:
            self._held -= len(body)

    async def answer(self, request: Request) -> Response:
        """Answers any request below /v1."""
        began = time.perf_counter()
        path = request.scope['raw_path'].decode('ascii', 'replace')  # as it was sent: '%2F' in a name is not a '/'
        prediction = _PREDICTION.fullmatch(path) if request.method == 'POST' else None
        model = _MODEL.fullmatch(path) if request.method == 'GET' else None
        code = grpc.StatusCode.OK
        try:
            if prediction:
                deadline = time.monotonic() + self._timeout_s
                body = await asyncio.wait_for(self._read_body(request), self._timeout_s)
                response = await self._run(body, self._answer_prediction, prediction, body, deadline)
            elif model:
                response = await self._run(b'', self._answer_model, model)
            else:
                raise refuse(f'Malformed request: {request.method} {path}')
        except ServiceError as error:
            code = error.code
            response = _make_error(error.message, _STATUSES[code])
        except _NotReadError as error:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            response = _make_error(error.message, error.status)
            response.headers['connection'] = 'close'  # the rest of the body is never read
        except TimeoutError:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            response = _make_error(f'The body was not complete after {self._timeout_s:g} s', 408)
            response.headers['connection'] = 'close'
        except ClientDisconnect:
            code = grpc.StatusCode.CANCELLED
            response = _make_error('The client has gone', _STATUSES[code])
        if prediction:
            metrics = self._service.metrics
            name = unquote(prediction['name'])
            known = name if name in self._service.store.list_models() else ''  # or a client could add metrics at will
            metrics.request_count.add(known, code.name)
            if code == grpc.StatusCode.OK:
                microseconds = (time.perf_counter() - began) * 1e6
                metrics.request_latency.labels(known, 'Predict', 'REST').observe(microseconds)
        return response

    def _answer_prediction(self, match: re.Match[str], body: bytes, deadline: float) -> Response:
        name, version, label = _read_which(match)
        method = match['method'].lower()
        asked = parse_object(body)
        signature = read_signature_name(asked)
        if method != 'predict':
            raise refuse_method(self._service, name, version, label, signature, method)
        with self._service.store.lease(name, version, label) as found:
            key = signature or DEFAULT_SIGNATURE
            if key not in found.signatures:
                raise refuse(f'Serving signature name: "{key}" not found in signature def')
            inputs, form = read_inputs(asked, found.signatures[key].inputs)
            answer = self._service.predict_with(found, Asked(name, signature, version, label, inputs, deadline))
        return _make_response(write_outputs(answer.outputs, form), version=answer.version)

    def _answer_model(self, match: re.Match[str]) -> Response:
        if not match['name']:
            raise refuse('Missing model name in request.')
        name, version, label = _read_which(match)
        options: dict[str, Any] = {'preserving_proto_field_name': True, 'always_print_fields_with_no_presence': True}
        if not match['metadata']:
            found = json_format.MessageToDict(describe_status(self._service, name, version), **options)
            for state in found['model_version_status']:
                state['status'] |= {'error_code': state['status'].get('error_code', 'OK')}
            return _make_response(json.dumps(found, indent=1).encode())
        metadata = describe_metadata(self._service, name, version, label)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        metadata.metadata[SIGNATURE_DEF].Unpack(signatures)
        number = metadata.model_spec.version.value
        spec = {'name': metadata.model_spec.name, 'signature_name': '', 'version': str(number)}
        answer = {
            'model_spec': spec,
            'metadata': {SIGNATURE_DEF: json_format.MessageToDict(signatures, **options)},
        }
        return _make_response(json.dumps(answer, indent=1).encode(), version=number)


def make_app(service: Service, timeout_s: float, metrics_path: str | None) -> Starlette:
    """Makes the application that a server for ASGI runs.

    Args:
      service: makes the answers.
      timeout_s: see `RestInterface`.
      metrics_path: where Prometheus reads the metrics; None for nowhere.
    """
    interface = RestInterface(service, timeout_s)

    async def show_metrics(request: Request) -> Response:
        return Response(service.metrics.render(), media_type='text/plain; version=0.0.4')

    routes = page.make_routes(service)
    if metrics_path:
        routes.append(Route(metrics_path, show_metrics))
    every: Callable[[Request], Any] = interface.answer
    routes.append(Route('/v1/{path:path}', every, methods=['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']))
    return Starlette(routes=routes)
