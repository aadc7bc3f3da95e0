"""TensorFlow Serving's gRPC interface: PredictionService and ModelService."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from components.errors import UsageError
from pipeline.server.faults import ServiceError, refuse
from pipeline.server.replies import make_status, refuse_classify
from pipeline.server.service import Asked, Service
from pipeline.server.tensors import MAX_BYTES, read_tensor, write_tensor

_THREADS = 64  # requests that are read or wait for their answer at the same time
_METADATA = 'signature_def'


def _choose_version(spec: model_pb2.ModelSpec) -> tuple[int | None, str | None]:
    """Returns the version and the label that a request names; None for what it does not name."""
    choice = spec.WhichOneof('version_choice')
    return (
        spec.version.value if choice == 'version' else None,
        spec.version_label if choice == 'version_label' else None,
    )


@contextmanager
def _answering(context: grpc.ServicerContext) -> Iterator[None]:
    """Ends a call with the code of a ServiceError."""
    try:
        yield
    except ServiceError as error:
        context.abort(error.code, error.message)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the calls that take tf.Examples are refused as TensorFlow Serving refuses them."""

    def __init__(self, service: Service):
        self._service = service

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs a signature."""
        began, code = time.perf_counter(), 'OK'
        try:
            response = self._predict(request, context)
        except ServiceError as error:
            code = error.code.name
            context.abort(error.code, error.message)
        finally:
            self._service.metrics.request_count.add(request.model_spec.name, code)
        latency = self._service.metrics.request_latency.labels(request.model_spec.name, 'Predict', 'GRPC')
        latency.observe((time.perf_counter() - began) * 1e6)
        return response

    def _predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        if not request.HasField('model_spec'):
            raise refuse('Missing ModelSpec')
        spec = request.model_spec
        version, label = _choose_version(spec)
        inputs = {name: read_tensor(name, tensor) for name, tensor in request.inputs.items()}
        remaining_s = context.time_remaining()
        deadline = float('inf') if remaining_s is None else time.monotonic() + remaining_s
        answer = self._service.predict(Asked(spec.name, spec.signature_name, version, label, inputs, deadline))
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.signature_name = spec.name, answer.signature
        response.model_spec.version.value = answer.version
        for name in _filter_outputs(list(request.output_filter), sorted(answer.outputs)):
            response.outputs[name].CopyFrom(write_tensor(answer.outputs[name]))
        return response

    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures of a version."""
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with _answering(context):
            if not request.HasField('model_spec'):
                raise refuse('Missing ModelSpec')
            if not request.metadata_field:
                raise refuse('GetModelMetadataRequest must specify at least one metadata_field')
            for field in request.metadata_field:
                if field != _METADATA:
                    raise refuse(f'Metadata field {field} is not supported')
            with self._service.store.lease(request.model_spec.name, *_choose_version(request.model_spec)) as version:
                response.model_spec.name = version.name
                response.model_spec.version.value = version.number
                signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
            response.metadata[_METADATA].Pack(signatures)
        return response

    def Classify(self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext) -> None:
        """Is refused."""
        self._refuse(request.model_spec, 'classify', context)

    def Regress(self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext) -> None:
        """Is refused."""
        self._refuse(request.model_spec, 'regress', context)

    def MultiInference(self, request: inference_pb2.MultiInferenceRequest, context: grpc.ServicerContext) -> None:
        """Is refused: for its first task, or because it has none."""
        with _answering(context):
            if not request.tasks:
                raise refuse('Inference request must contain at least one task')
            method = request.tasks[0].method_name.removeprefix('tensorflow/serving/')
            if method not in ('classify', 'regress'):
                raise ServiceError(
                    grpc.StatusCode.UNIMPLEMENTED,
                    f'Unsupported signature method_name: {request.tasks[0].method_name}',
                )
            self._refuse(request.tasks[0].model_spec, method, context)

    def _refuse(self, spec: model_pb2.ModelSpec, method: str, context: grpc.ServicerContext) -> None:
        with _answering(context), self._service.store.lease(spec.name, *_choose_version(spec)) as version:
            raise refuse_classify(version, spec.signature_name, method)


def _filter_outputs(wanted: list[str], there: list[str]) -> list[str]:
    """Returns the outputs that a request wants, all if it names none.

    Raises:
      ServiceError: it names one that is not there, or one twice.
    """
    for place, name in enumerate(wanted):
        if name not in there:
            raise refuse(
                f'output tensor alias not found in signature: {name} Outputs expected to be in the set '
                f'{{{",".join(there)}}}.'
            )
        if name in wanted[:place]:
            raise refuse(f'duplicate output tensor alias: {name}')
    return wanted or there


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; a configuration comes from its file only."""

    def __init__(self, service: Service):
        self._service = service

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the states of a model's versions; a version label makes no difference, as in TensorFlow Serving."""
        with _answering(context):
            if not request.HasField('model_spec'):
                raise refuse('Missing ModelSpec')
            version, _ = _choose_version(request.model_spec)
            return make_status(self._service.store, request.model_spec.name, version)

    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> None:
        """Is refused: whoever reaches the port could have any folder loaded."""
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            'This small server takes its configuration from --model_config_file only; change that file.',
        )


def start_grpc(service: Service, host: str, port: int) -> grpc.Server:
    """Starts the gRPC interface.

    Raises:
      UsageError: the port is in use.
    """
    logging.getLogger('grpc').setLevel(logging.CRITICAL)  # it logs a traceback for every message that is not protobuf
    options = [
        ('grpc.max_receive_message_length', MAX_BYTES),
        ('grpc.max_send_message_length', -1),
        ('grpc.so_reuseport', 0),
    ]
    # What comes while all threads are busy waits with its message in memory, so its number is bounded.
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=options, maximum_concurrent_rpcs=2 * _THREADS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(service), server)
    try:
        server.add_insecure_port(f'{host}:{port}')
    except RuntimeError as error:
        raise UsageError(f'Port {port} of {host} cannot be used for gRPC, probably because it is in use; choose another with --port.') from error
    server.start()
    return server
