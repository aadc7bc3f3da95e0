"""The gRPC interface of TensorFlow Serving: PredictionService and ModelService."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from components.errors import UsageError
from pipeline.server.answers import SIGNATURE_DEF, describe_metadata, describe_status, refuse_method
from pipeline.server.faults import ServiceError, refuse
from pipeline.server.models import DEFAULT_SIGNATURE
from pipeline.server.service import Asked, Service
from pipeline.server.tensors import MAX_BYTES, read_tensor, write_tensor

_THREADS = 64  # requests that wait for the model at the same time
_MAX_MESSAGE_BYTES = MAX_BYTES + (1 << 20)


def _read_spec(spec: model_pb2.ModelSpec) -> tuple[str, int | None, str | None]:
    """Returns name, version and label."""
    choice = spec.WhichOneof('version_choice')
    version = spec.version.value if choice == 'version' else None
    return spec.name, version, spec.version_label if choice == 'version_label' else None


def _filter_outputs(wanted: list[str], there: list[str]) -> list[str]:
    """Returns the outputs that a request wants, all of them if it names none.

    Raises:
      ServiceError: it names one that is not there, or one twice.
    """
    for place, key in enumerate(wanted):
        if key not in there:
            raise refuse(
                f'output tensor alias not found in signature: {key} Outputs expected to be in the set '
                f'{{{",".join(there)}}}.'
            )
        if key in wanted[:place]:
            raise refuse(f'duplicate output tensor alias: {key}')
    return wanted or there


def _check_spec(request: Any) -> None:
    """Refuses a request that does not name a model."""
    if not request.HasField('model_spec'):
        raise refuse('Missing ModelSpec')


def _answer(context: grpc.ServicerContext, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except ServiceError as error:
        context.abort(error.code, error.message)


class _Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, service: Service):
        self._service = service

    def Predict(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> Any:
        """Runs a signature."""
        began, metrics = time.perf_counter(), self._service.metrics
        name = request.model_spec.name
        known = name if name in self._service.store.list_models() else ''  # or a client could add metrics at will
        try:
            response = self._predict(request, context)
        except ServiceError as error:
            metrics.request_count.add(known, error.code.name)
            context.abort(error.code, error.message)
        metrics.request_count.add(known, 'OK')
        metrics.request_latency.labels(known, 'Predict', 'GRPC').observe((time.perf_counter() - began) * 1e6)
        return response

    def _predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        _check_spec(request)
        name, version, label = _read_spec(request.model_spec)
        left_s = context.time_remaining()
        deadline = time.monotonic() + left_s if left_s is not None else float('inf')
        inputs = {key: read_tensor(key, tensor) for key, tensor in request.inputs.items()}
        answer = self._service.predict(Asked(name, request.model_spec.signature_name, version, label, inputs, deadline))
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.version.value = name, answer.version
        response.model_spec.signature_name = answer.signature
        for key in _filter_outputs(list(request.output_filter), sorted(answer.outputs)):
            response.outputs[key].CopyFrom(write_tensor(answer.outputs[key]))
        return response

    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> Any:
        """Returns the signatures."""

        def make() -> get_model_metadata_pb2.GetModelMetadataResponse:
            _check_spec(request)
            if not request.metadata_field:
                raise refuse('GetModelMetadataRequest must specify at least one metadata_field')
            for field in request.metadata_field:
                if field != SIGNATURE_DEF:
                    raise refuse(f'Metadata field {field} is not supported')
            return describe_metadata(self._service, *_read_spec(request.model_spec))

        return _answer(context, make)

    def _refuse(self, request: Any, context: grpc.ServicerContext, method: str) -> None:
        def make() -> None:
            spec = request.model_spec
            raise refuse_method(self._service, *_read_spec(spec), spec.signature_name or DEFAULT_SIGNATURE, method)

        _answer(context, make)

    def Classify(self, request: Any, context: grpc.ServicerContext) -> None:
        """Refuses: the signatures have the method predict."""
        self._refuse(request, context, 'classify')

    def Regress(self, request: Any, context: grpc.ServicerContext) -> None:
        """Refuses: the signatures have the method predict."""
        self._refuse(request, context, 'regress')

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> None:
        """Refuses, as Classify and Regress do."""
        if not request.tasks:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, 'Inference request must contain at least one task')
        method = request.tasks[0].method_name.rpartition('/')[2]
        if method not in ('classify', 'regress'):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f'Unsupported signature method_name: {method}')
        self._refuse(request.tasks[0], context, method)


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, service: Service):
        self._service = service

    def GetModelStatus(self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext) -> Any:
        """Returns the states of a model's versions; a label makes no difference, as in TensorFlow Serving."""

        def make() -> get_model_status_pb2.GetModelStatusResponse:
            _check_spec(request)
            name, version, _ = _read_spec(request.model_spec)
            return describe_status(self._service, name, version)

        return _answer(context, make)

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> None:
        """Refuses: else whoever reaches the port could have any folder loaded."""
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            'This small server takes its configuration from --model_config_file only; change that file',
        )


def make_server(service: Service, address: str) -> grpc.Server:
    """Makes a server that has its port, and answers once it is started.

    Args:
      service: makes the answers.
      address: HOST:PORT.

    Raises:
      UsageError: somebody listens there.
    """
    logging.getLogger('grpc').setLevel(logging.CRITICAL)  # it logs a traceback for each message that is not protobuf
    options = [('grpc.max_receive_message_length', _MAX_MESSAGE_BYTES), ('grpc.so_reuseport', 0)]
    # What comes while all threads are busy waits with its message in memory, so its number is bounded.
    server = grpc.server(ThreadPoolExecutor(_THREADS, 'grpc'), options=options, maximum_concurrent_rpcs=2 * _THREADS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Predictions(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(service), server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise UsageError(f'--port: {address} cannot be listened on; choose a different port.') from error
    return server
