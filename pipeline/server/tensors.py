"""Tensors of TensorFlow Serving's gRPC interface, to and from NumPy."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2

from pipeline.server.faults import refuse

MAX_BYTES = 64 << 20  # of a request, and of each tensor in it: a few bytes can declare a tensor of any size

# The fields that TensorFlow Serving fills. Clients read these, although `tf.make_tensor_proto` would write raw bytes.
_FIELDS = {
    types_pb2.DT_FLOAT: 'float_val',
    types_pb2.DT_DOUBLE: 'double_val',
    types_pb2.DT_INT64: 'int64_val',
    types_pb2.DT_INT32: 'int_val',
    types_pb2.DT_INT16: 'int_val',
    types_pb2.DT_INT8: 'int_val',
    types_pb2.DT_UINT8: 'int_val',
    types_pb2.DT_BOOL: 'bool_val',
    types_pb2.DT_STRING: 'string_val',
    types_pb2.DT_UINT32: 'uint32_val',
    types_pb2.DT_UINT64: 'uint64_val',
}


def read_tensor(name: str, tensor: tensor_pb2.TensorProto) -> npt.NDArray[Any]:
    """Returns the values of a tensor; strings as an array of objects of type bytes.

    Raises:
      ServiceError: it contradicts itself, has a type that no model takes, or declares more than MAX_BYTES.
    """
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.dtype not in _FIELDS or tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise refuse(f'tensor parsing error: {name}')
    size = math.prod(shape) * tf.dtypes.as_dtype(tensor.dtype).size
    if size > MAX_BYTES:
        raise refuse(
            f'tensor parsing error: {name} declares the shape {shape}, which is {size:,} bytes; this server takes '
            f'{MAX_BYTES:,}'
        )
    if tensor.dtype == types_pb2.DT_STRING and len(tensor.string_val) != math.prod(shape):
        raise refuse(f'tensor parsing error: {name} has {len(tensor.string_val)} strings for the shape {shape}')
    try:
        values: npt.NDArray[Any] = tf.make_ndarray(tensor)
    except (ValueError, TypeError) as error:
        raise refuse(f'tensor parsing error: {name}') from error
    return values


def write_tensor(values: npt.NDArray[Any]) -> tensor_pb2.TensorProto:
    """Makes a tensor with each value in the field of its type."""
    kind = types_pb2.DT_STRING if values.dtype == object else tf.dtypes.as_dtype(values.dtype).as_datatype_enum
    if kind not in _FIELDS:
        return tf.make_tensor_proto(values)
    dimensions = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in values.shape]
    tensor = tensor_pb2.TensorProto(dtype=kind, tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dimensions))
    getattr(tensor, _FIELDS[kind]).extend(np.ravel(values).tolist())
    return tensor
