"""Answers that REST and gRPC have in common."""

from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_status_pb2

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock

from pipeline.server.faults import ServiceError, refuse
from pipeline.server.models import LoadedVersion, ModelStore
from pipeline.server.service import DEFAULT_SIGNATURE

_KINDS = {'classify': ('classification', 'one or two output Tensors, found {}', (1, 2)),
          'regress': ('regression', 'one output Tensor.', (1,))}


def make_status(
    store: ModelStore, name: str, version: int | None
) -> get_model_status_pb2.GetModelStatusResponse:
    """Makes the states of a model's versions, or of one of them.

    Raises:
      ServiceError: there is no such model, or no such version of it.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    for number, state in store.list_states(name, version).items():
        status = response.model_version_status.add(version=number, state=state.state)
        status.status.error_code = state.code.value[0]
        status.status.error_message = state.message
    return response


def find_signature(version: LoadedVersion, name: str, message: str) -> meta_graph_pb2.SignatureDef:
    """Returns a signature by its name; '' is the default one.

    Args:
      version: whose signature.
      name: of the signature.
      message: of the error, with {} for the name.

    Raises:
      ServiceError: there is no such signature.
    """
    name = name or DEFAULT_SIGNATURE
    if name not in version.signatures:
        raise refuse(message.format(name))
    return version.signatures[name]


def refuse_classify(version: LoadedVersion, signature: str, method: str) -> ServiceError:
    """Makes the refusal of a request to classify or regress, for which the signatures of images are not made.

    TensorFlow Serving answers such a request only for a signature with an input called 'inputs'; the words are its own.

    Args:
      version: that was asked.
      signature: that was asked; '' is the default one.
      method: 'classify' or 'regress'.
    """
    kind, outputs, counts = _KINDS[method]
    try:
        found = find_signature(version, signature, 'No signature was found with the name: {}')
    except ServiceError as error:
        return error
    if len(found.inputs) != 1:
        return refuse('Expected one input Tensor.')
    if len(found.outputs) not in counts:
        return refuse(f'Expected {outputs.format(len(found.outputs))}')
    if 'inputs' not in found.inputs:
        return refuse(f'No {kind} inputs found in SignatureDef: {found}')
    return ServiceError(grpc.StatusCode.UNIMPLEMENTED, f'This small server has no {method}; TensorFlow Serving has it.')
