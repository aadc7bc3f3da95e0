"""Answers about models that both protocols give: metadata, status, and what is refused."""

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from pipeline.server.faults import ServiceError, refuse
from pipeline.server.service import DEFAULT_SIGNATURE, Service

_KINDS = {'classify': 'classification', 'regress': 'regression'}
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


def describe_status(
    service: Service, name: str, version: int | None, label: str | None
) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the states of a model's versions, the newest first as in TensorFlow Serving.

    Raises:
      ServiceError: there is no such model, version or label.
    """
    if label is not None:
        version = service.store.find_label(name, label)
    response = get_model_status_pb2.GetModelStatusResponse()
    for number, state in reversed(service.store.list_states(name, version).items()):
        found = response.model_version_status.add(version=number, state=state.state)
        found.status.error_code, found.status.error_message = state.code.value[0], state.message
    return response


def refuse_method(
    service: Service, name: str, version: int | None, label: str | None, signature: str, method: str
) -> ServiceError:
    """Makes the error of a request to classify or to regress, which no signature of this pipeline's models is for.

    Args:
      service: has the model.
      name, version, label: which version is asked.
      signature: which signature; '' for the default.
      method: 'classify' or 'regress'.

    Raises:
      ServiceError: the version is not loaded.
    """
    with service.store.lease(name, version, label) as found:
        key = signature or DEFAULT_SIGNATURE
        if key not in found.signatures:
            return refuse(f'No signature was found with the name: {key}')
        actual = found.signatures[key].method_name
    expected = f'tensorflow/serving/{method}'
    return ServiceError(
        grpc.StatusCode.INVALID_ARGUMENT,
        f'Expected {_KINDS[method]} signature method_name to be {expected}. Was: {actual}',
    )
