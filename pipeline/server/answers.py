"""Answers about models that both protocols give: metadata, status, and what is refused."""

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from pipeline.server.faults import ServiceError, refuse
from pipeline.server.models import DEFAULT_SIGNATURE
from pipeline.server.service import Service

# By method: what it is called, how many outputs it may have, and what is said of others.
_KINDS = {
    'classify': ('classification', (1, 2), 'Expected one or two output Tensors, found {}'),
    'regress': ('regression', (1,), 'Expected one output Tensor.'),
}
SIGNATURE_DEF = 'signature_def'  # the only field that GetModelMetadata has


def describe_metadata(
    service: Service, name: str, version: int | None, label: str | None
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Returns a version's signatures.

    Raises:
      ServiceError: it is not loaded.
    """
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    with service.store.lease(name, version, label) as found:
        response.model_spec.name, response.model_spec.version.value = name, found.number
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in found.signatures.items():
            signatures.signature_def[key].CopyFrom(signature)
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response


def describe_status(service: Service, name: str, version: int | None) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the states of a model's versions, the newest first as in TensorFlow Serving.

    Raises:
      ServiceError: there is no such model or version.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    for number, state in reversed(service.store.list_states(name, version).items()):
        found = response.model_version_status.add(version=number, state=state.state)
        found.status.error_code, found.status.error_message = state.code.value[0], state.message
    return response


def refuse_method(
    service: Service, name: str, version: int | None, label: str | None, signature: str, method: str
) -> ServiceError:
    """Makes the error of a request to classify or to regress, which no signature of this pipeline's models is for.

    The checks and the words are those of TensorFlow Serving's classifier.cc and regressor.cc, for a server that is
    started without --enable_signature_method_name_check: it looks at inputs and outputs, not at the method's name.

    Args:
      service: has the model.
      name, version, label: which version is asked.
      signature: which signature; '' for the default.
      method: 'classify' or 'regress'.

    Raises:
      ServiceError: the version is not loaded.
    """
    kind, counts, outputs = _KINDS[method]
    with service.store.lease(name, version, label) as found:
        key = signature or DEFAULT_SIGNATURE
        if key not in found.signatures:
            return refuse(f'No signature was found with the name: {key}')
        asked = found.signatures[key]
    if len(asked.inputs) != 1:
        return refuse('Expected one input Tensor.')
    if len(asked.outputs) not in counts:
        return refuse(outputs.format(len(asked.outputs)))
    if 'inputs' not in asked.inputs:
        return refuse(f'No {kind} inputs found in SignatureDef: {asked}')
    return ServiceError(grpc.StatusCode.UNIMPLEMENTED, f'This small server does not {method}; TensorFlow Serving does.')
