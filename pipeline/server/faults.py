"""The errors that clients get, with the codes that TensorFlow Serving gives them."""

import re

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
import tensorflow as tf

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_NODE = re.compile(r'\s*\[\[\{\{node .*', re.DOTALL)  # where in the graph, which means nothing to a client
_PREFACE = re.compile(r'^Graph execution error:.*?<stack traces unavailable>\s*', re.DOTALL)
_OPERATION = re.compile(r'\s*\[Op:\w+\]')


class ServiceError(Exception):
    """A request that gets no answer, with the code and the sentence that its client gets."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def refuse(message: str) -> ServiceError:
    """Makes the error of a request that is wrong in itself: INVALID_ARGUMENT."""
    return ServiceError(grpc.StatusCode.INVALID_ARGUMENT, message)


def translate(error: tf.errors.OpError) -> ServiceError:
    """Makes the error that a client gets from one of TensorFlow's, without the places in TensorFlow's graph."""
    text = _OPERATION.sub('', _NODE.sub('', _PREFACE.sub('', error.message))).strip()
    return ServiceError(_CODES[error.error_code], text or type(error).__name__)
