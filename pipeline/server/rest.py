"""TensorFlow Serving's REST interface: predictions, the states of versions, signatures, and metrics."""

import asyncio
import functools
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import unquote

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
from google.protobuf.json_format import MessageToJson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from pipeline.server.faults import ServiceError, refuse
from pipeline.server.page import make_routes
from pipeline.server.replies import find_signature, make_status, refuse_classify
from pipeline.server.rest_json import parse_object, read_inputs, read_signature_name, write_outputs
from pipeline.server.service import Asked, Service
from pipeline.server.tensors import MAX_BYTES

VERSION_HEADER = 'X-Model-Version'  # of an answered :predict; TensorFlow Serving has no such header

_THREADS = 64  # requests that are read or wait for their answer at the same time
_MAX_BODIES = 4 * MAX_BYTES  # bytes of all bodies that are in memory at the same time
_CHOICE = r'(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?'
_PREDICT = re.compile(rf'/v1/models/(?P<name>[^/:]+){_CHOICE}:(?P<method>classify|regress|predict)', re.IGNORECASE)
_STATUS = re.compile(rf'/v1/models(?:/(?P<name>[^/:]+))?{_CHOICE}(?P<method>/metadata)?', re.IGNORECASE)

# HTTP statuses by code, as TensorFlow Serving's http_server.cc has them; every other code is 500.
_STATUSES = {
    grpc.StatusCode.CANCELLED: 499,
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
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}


class _Named(NamedTuple):
    """What the path of a request names."""

    name: str
    version: int | None
    label: str | None
    method: str


class _Refusal(Exception):
    """A request whose body is not read to its end; the connection is closed."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


def _parse_path(method: str, path: str) -> _Named:
    """Reads what a path names.

    Raises:
      ServiceError: it is not one of TensorFlow Serving's.
    """
    pattern = {'POST': _PREDICT, 'GET': _STATUS}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        raise refuse(f'Malformed request: {method} {path}')
    version, label = match['version'], match['label']
    if version and int(version) >= 1 << 63:
        raise refuse(f'Failed to convert version: {version} to numeric.')
    name = unquote(match['name'] or '')
    return _Named(name, int(version) if version else None, unquote(label) if label else None, match['method'] or '')


def _make_error(status: int, message: str, **headers: str) -> Response:
    return Response(json.dumps({'error': message}), status, headers, 'application/json')


class RestInterface:
    """The application that uvicorn serves.

    Args:
      service: answers.
      timeout_s: seconds for a client to send a request, and again for the server to answer it.
      metrics_path: path of the metrics; None leaves them out.
    """

    def __init__(self, service: Service, timeout_s: float, metrics_path: str | None):
        self._service, self._timeout_s = service, timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, 'rest')
        self._held = 0  # bytes of bodies; only the event loop's thread changes it
        routes = [Route('/v1/{rest:path}', self._answer, methods=['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])]
        if metrics_path:
            routes.append(Route(metrics_path, self._render_metrics))
        self.app = Starlette(routes=[*routes, *make_routes(service)])

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown()

    async def _render_metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.render(), media_type='text/plain')

    async def _answer(self, request: Request) -> Response:
        held = 0
        began = time.perf_counter()
        # The path as it was sent, because '%2F' in a name is not a '/'.
        path = request.scope['raw_path'].decode('ascii', 'replace')
        try:
            named = _parse_path(request.method, path)
            body = await asyncio.wait_for(self._read_body(request), self._timeout_s)
            held = len(body)
            self._held += held
            work = functools.partial(self._handle, named, body, time.monotonic() + self._timeout_s, began)
            del body
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ServiceError as error:
            return _make_error(_STATUSES.get(error.code, 500), error.message)
        except _Refusal as error:
            return _make_error(error.status, error.message, connection='close')
        except TimeoutError:
            return _make_error(
                408, f'The request did not come completely within {self._timeout_s:g} s', connection='close'
            )
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            self._held -= held

    async def _read_body(self, request: Request) -> bytes:
        """Reads a body of bounded size; a declared size alone costs no memory.

        Raises:
          _Refusal: it is too large, or there are too many others.
        """
        declared = request.headers.get('content-length', '0')
        body = bytearray()
        try:
            if int(declared) > MAX_BYTES:
                raise _Refusal(413, f'The request has {int(declared):,} bytes; this server takes {MAX_BYTES:,}')
            async for part in request.stream():
                body += part
                self._held += len(part)
                if len(body) > MAX_BYTES:
                    raise _Refusal(413, f'The request has more than the {MAX_BYTES:,} bytes that this server takes')
                if self._held > _MAX_BODIES:
                    raise _Refusal(503, 'The server holds too many large requests; try again')
            return bytes(body)
        finally:
            self._held -= len(body)

    def _handle(self, named: _Named, body: bytes, deadline: float, began: float) -> Response:
        if named.method == 'predict':
            return self._predict(named, body, deadline, began)
        if named.method in ('classify', 'regress'):
            raise self._refuse_examples(named, body)
        if not named.name:
            raise refuse('Missing model name in request.')
        if named.method:
            return _make_json(self._describe(named))
        status = make_status(self._service.store, named.name, named.version)
        return _make_json(MessageToJson(status, always_print_fields_with_no_presence=True))

    def _predict(self, named: _Named, body: bytes, deadline: float, began: float) -> Response:
        code = 'OK'
        try:
            request = parse_object(body)
            signature = read_signature_name(request)
            with self._service.store.lease(named.name, named.version, named.label) as version:
                expected = find_signature(version, signature, 'Serving signature name: "{}" not found in signature def')
            inputs, form = read_inputs(request, expected.inputs)
            del request
            answer = self._service.predict(Asked(named.name, signature, named.version, named.label, inputs, deadline))
            content = write_outputs(answer.outputs, form)
        except ServiceError as error:
            code = error.code.name
            raise
        finally:
            self._service.metrics.request_count.add(named.name, code)
        latency = self._service.metrics.request_latency.labels(named.name, 'predict', 'REST')
        latency.observe((time.perf_counter() - began) * 1e6)
        return Response(content, headers={VERSION_HEADER: str(answer.version)}, media_type='application/json')

    def _refuse_examples(self, named: _Named, body: bytes) -> ServiceError:
        """Makes the refusal of a :classify or :regress, in the order of TensorFlow Serving's checks."""
        request = parse_object(body)
        if not isinstance(request.get('examples'), list) or not request['examples']:
            return refuse("When method is classify, key 'examples' is expected and was not found")
        with self._service.store.lease(named.name, named.version, named.label) as version:
            return refuse_classify(version, read_signature_name(request), named.method)

    def _describe(self, named: _Named) -> str:
        """Returns the signatures of a version as JSON."""
        with self._service.store.lease(named.name, named.version, named.label) as version:
            spec = model_pb2.ModelSpec(name=version.name)
            spec.version.value = version.number
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        options = {'always_print_fields_with_no_presence': True, 'preserving_proto_field_name': True}
        texts = [MessageToJson(message, **options) for message in (spec, signatures)]
        return f'{{"model_spec": {texts[0]}, "metadata": {{"signature_def": {texts[1]}}}}}'


def _make_json(text: str) -> Response:
    return Response(text, media_type='application/json')
