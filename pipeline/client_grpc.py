"""gRPC: asks a model on a server for predictions, with tensors in protocol buffers."""

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
import numpy as np

from components import features
from pipeline.classifier import Interface, RefusedError, Reply
from pipeline.client import (
    ATTEMPTS,
    FIRST_BACKOFF_S,
    LAST_BACKOFF_S,
    ServerError,
    Target,
    explain_delay,
    explain_silence,
)


@contextlib.contextmanager
def _stand_in_tensorflow() -> Iterator[None]:
    """Has `tensorflow` imported as an empty package within the context, unless it has been imported already.

    The official API's messages contain messages that lie in TensorFlow's package, whose own import takes seconds.
    These messages need nothing of it. Afterwards TensorFlow can be imported as ever: it finds the same messages.
    """
    spec = None if 'tensorflow' in sys.modules else importlib.util.find_spec('tensorflow')
    if spec is None:
        yield
        return
    empty = ModuleType('tensorflow')
    empty.__path__ = list(spec.submodule_search_locations or ())
    sys.modules['tensorflow'] = empty
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name == 'tensorflow' or name.startswith('tensorflow.')]:
            del sys.modules[name]


with _stand_in_tensorflow():
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

_RETRY = {
    'methodConfig': [
        {
            'name': [{}],
            'retryPolicy': {
                'maxAttempts': ATTEMPTS,
                'initialBackoff': f'{FIRST_BACKOFF_S}s',
                'maxBackoff': f'{LAST_BACKOFF_S}s',
                'backoffMultiplier': 2,
                'retryableStatusCodes': ['UNAVAILABLE'],
            },
        }
    ]
}
_REFUSALS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)

# Where a TensorProto has its values, if they are not in tensor_content.
_FIELDS = {
    types_pb2.DT_FLOAT: ('float_val', np.float32),
    types_pb2.DT_INT64: ('int64_val', np.int64),
    types_pb2.DT_STRING: ('string_val', np.object_),
}


class GrpcModel:
    """A model on a server, see `pipeline.classifier.Model`.

    Args:
      target: the model and the server.
      deadline_s: seconds that a request may take, with all attempts.
    """

    batch_size = 32
    concurrency = 2

    def __init__(self, target: Target, deadline_s: float):
        self.name = target.address
        self._target, self._deadline_s = target, deadline_s
        options = [('grpc.service_config', json.dumps(_RETRY)), ('grpc.max_receive_message_length', -1)]
        if target.is_local:
            options.append(('grpc.enable_http_proxy', 0))
        if target.is_tls:
            self._channel = grpc.secure_channel(target.address, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.insecure_channel(target.address, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def describe(self) -> Interface:
        """Says what the model can be asked, see `pipeline.classifier.Model`."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=['signature_def'])
        self._choose(request.model_spec)
        try:
            response = self._stub.GetModelMetadata(request, timeout=self._deadline_s)
        except grpc.RpcError as error:
            raise self._explain(error) from error
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata['signature_def'].Unpack(signatures)
        names = frozenset(signatures.signature_def)
        if features.SIGNATURE_RAW not in names:
            return Interface(names, None)
        image = signatures.signature_def[features.SIGNATURE_RAW].inputs[features.IMAGE_KEY]
        return Interface(names, image.tensor_shape.dim[1].size)

    def ask(self, signature: str, images: Sequence[bytes]) -> Reply:
        """Runs a signature, see `pipeline.classifier.Model`."""
        tensor = _make_tensor(types_pb2.DT_STRING, len(images))
        tensor.string_val.extend(images)
        return self._predict(signature, features.IMAGE_KEY, tensor)

    def name_classes(self, labels: Sequence[int]) -> list[str]:
        """Asks for the names of the classes, see `pipeline.classifier.Model`."""
        tensor = _make_tensor(types_pb2.DT_INT64, len(labels))
        tensor.int64_val.extend(labels)
        reply = self._predict(features.SIGNATURE_CLASS_NAMES, features.LABEL_KEY, tensor)
        return reply.outputs[features.OUTPUT_CLASS_NAME]

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _predict(self, signature: str, key: str, tensor: Any) -> Reply:
        request = predict_pb2.PredictRequest()
        self._choose(request.model_spec)
        request.model_spec.signature_name = signature
        request.inputs[key].CopyFrom(tensor)
        try:
            response = self._stub.Predict(request, timeout=self._deadline_s)
        except grpc.RpcError as error:
            if error.code() in _REFUSALS:
                raise RefusedError(f'cannot be classified: {_read_details(error)}') from error
            raise self._explain(error) from error
        version = response.model_spec.version.value if response.model_spec.HasField('version') else None
        return Reply(version, {name: _read_tensor(tensor) for name, tensor in response.outputs.items()})

    def _choose(self, spec: Any) -> None:
        """Fills in which version of which model is asked for."""
        spec.name = self._target.model
        if self._target.label is not None:
            spec.version_label = self._target.label
        elif self._target.version is not None:
            spec.version.value = self._target.version

    def _explain(self, error: Any) -> ServerError:
        code, details = error.code(), _read_details(error)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return explain_delay(self._target, self._deadline_s)
        if code is grpc.StatusCode.UNAVAILABLE:
            return explain_silence(self._target, details)
        return ServerError(f'{self.name} refuses a request with {code.name}: {details}')


def _read_details(error: Any) -> str:
    """Returns the server's words in one line."""
    return ' '.join((error.details() or '').split())[:300]


def _make_tensor(dtype: Any, size: int) -> Any:
    """Makes a TensorProto of one dimension, still without values."""
    tensor = tensor_pb2.TensorProto(dtype=dtype)
    tensor.tensor_shape.dim.add(size=size)
    return tensor


def _read_tensor(tensor: Any) -> list[Any]:
    """Returns what a TensorProto of floats, whole numbers or texts holds, as nested lists; texts in UTF-8.

    The work of tf.make_ndarray, without TensorFlow.
    """
    field, dtype = _FIELDS[tensor.dtype]
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        values: Any = np.frombuffer(tensor.tensor_content, dtype)
    else:
        values = np.array([*getattr(tensor, field)], dtype)
        if 0 < values.size < np.prod(shape):  # values at the end that are the same are left out
            values = np.concatenate([values, np.repeat(values[-1:], np.prod(shape) - values.size)])
    nested: list[Any] = values.reshape(shape).tolist()
    return [text.decode(errors='replace') for text in nested] if dtype is np.object_ else nested
