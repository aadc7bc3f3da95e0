"""JSON of TensorFlow Serving's REST interface, to and from tensors: the same forms, and the same words in errors.

https://www.tensorflow.org/tfx/serving/api_rest describes the forms; the words are those of its json_tensor.cc.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from pipeline.server.faults import ServiceError, refuse

Array = npt.NDArray[Any]
Inputs = Mapping[str, meta_graph_pb2.TensorInfo]
Form = Literal['row', 'column']

_SHOWN = 256  # characters of a value that an error repeats
_TYPES = {dict: 'Object', list: 'Array', str: 'String', int: 'Number', float: 'Number', type(None): 'Null'}


def _show(value: Any) -> str:
    """Writes a value as an error repeats it."""
    return json.dumps(value, ensure_ascii=False)[:_SHOWN]


def _name_type(value: Any) -> str:
    return str(value) if isinstance(value, bool) else _TYPES[type(value)]


def parse_object(body: bytes) -> dict[str, Any]:
    """Reads the object that a body begins with; like TensorFlow Serving it takes NaN and Infinity for numbers.

    Raises:
      ServiceError: the body is not JSON, or not an object.
    """
    if not body:
        raise refuse('JSON Parse error: The document is empty')
    text = body.decode('utf-8', 'surrogateescape').lstrip('\ufeff \t\r\n')
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        raise refuse(f'JSON Parse error: {error.msg} at offset: {error.pos}') from error
    except (RecursionError, ValueError) as error:  # nested too deep, or a number with thousands of digits
        raise refuse(f'JSON Parse error: {str(error)[:_SHOWN]}') from error
    if not isinstance(value, dict):
        raise refuse(f'JSON Value: {_show(value)} Is not object')
    return value


def read_signature_name(body: dict[str, Any]) -> str:
    """Returns the signature that a request names; '' if it names none.

    Raises:
      ServiceError: it is not a string.
    """
    name = body.get('signature_name', '')
    if not isinstance(name, str):
        raise refuse(f"JSON Value: {_show(body)} not formatted correctly. 'signature_name' key must be a string value.")
    return name


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {'b64'} and isinstance(value['b64'], str)


def _is_named(value: Any) -> bool:
    """Whether a value is an object that has a value for each input, and not bytes."""
    return isinstance(value, dict) and not _is_base64(value)


def _read_string(value: Any) -> bytes:
    if isinstance(value, dict):
        if not _is_base64(value):
            raise refuse(f'JSON Value: {_show(value)} not formatted correctly for base64 data')
        text = ''.join(value['b64'].split()).rstrip('=')
        try:
            return base64.b64decode(text + '=' * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise refuse('Unable to base64 decode') from error
    if not isinstance(value, str):
        raise _refuse_type(value, tf.string)
    try:
        return value.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError as error:
        raise refuse('JSON Parse error: The surrogate pair in string is invalid.') from error


def _refuse_type(value: Any, kind: tf.DType) -> ServiceError:
    return refuse(f'JSON Value: {_show(value)} Type: {_name_type(value)} is not of expected type: {kind.name}')


def _read_number(value: Any, kind: tf.DType) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == tf.bool:
        fits = isinstance(value, bool)
    elif kind.is_floating:
        fits = is_number
    elif kind.is_integer:
        fits = is_number and isinstance(value, int) and kind.min <= value <= kind.max
    else:
        raise refuse(f'Conversion of JSON Value: {_show(value)} to type: {kind.name}')
    if not fits:
        raise _refuse_type(value, kind)
    return value


def _find_shape(value: Any) -> list[int]:
    """Returns the shape of a value by its first elements."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _flatten(value: Any, level: int, shape: list[int], kind: tf.DType, found: list[Any]) -> None:
    """Appends the elements of a value to `found`, if it has the shape."""
    if not isinstance(value, list):
        if level != len(shape):
            raise refuse(
                f'JSON Value: {_show(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: '
                f'{len(shape)}'
            )
        found.append(_read_string(value) if kind == tf.string else _read_number(value, kind))
        return
    if level >= len(shape):
        raise refuse(f'Encountered list at unexpected level: {level} expected < {len(shape)}')
    if len(value) != shape[level]:
        raise refuse(
            f'Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}'
        )
    for element in value:
        _flatten(element, level + 1, shape, kind, found)


def _read_tensor(value: Any, kind: tf.DType) -> Array:
    shape = _find_shape(value)
    found: list[Any] = []
    _flatten(value, 0, shape, kind, found)
    values = np.empty(len(found), object if kind == tf.string else kind.as_numpy_dtype)
    values[:] = found
    return values.reshape(shape)


def _read_rows(rows: list[Any], inputs: Inputs) -> dict[str, Array]:
    """Reads the row form: a list with a value for each row, or an object with a value for each input."""
    if not isinstance(rows[0], dict) and len(inputs) > 1:
        raise refuse(
            'instances is a plain list, but expecting list of objects as multiple input tensors required as per '
            'tensorinfo_map'
        )
    are_named = _is_named(rows[0])
    columns: dict[str, list[Array]] = {name: [] for name in inputs}
    for place, row in enumerate(rows):
        if are_named and not _is_named(row):
            raise refuse(f'Expecting object but got list at item {place} of input list')
        if not are_named and _is_named(row):
            raise refuse(f'Expecting value/list but got object at item {place} of input list')
        named = row if are_named else {next(iter(inputs)): row}
        for name, value in named.items():
            key = f' key: {name}' if are_named else ''
            try:
                _add_row(value, name, inputs, columns)
            except ServiceError as error:
                raise refuse(
                    f"Failed to process element: {place}{key} of 'instances' list. Error: INVALID_ARGUMENT: "
                    f'{error.message}'
                ) from error
        if named.keys() != inputs.keys():
            raise refuse(
                f"Failed to process element: {place} of 'instances' list. JSON object: {_show(row)} keys must be equal "
                f'to: {",".join(sorted(inputs))}'
            )
    return {name: _stack(column) for name, column in columns.items()}


def _add_row(value: Any, name: str, inputs: Inputs, columns: dict[str, list[Array]]) -> None:
    if name not in inputs:
        raise refuse(f'JSON object: does not have named input: {name}')
    tensor = _read_tensor(value, tf.dtypes.as_dtype(inputs[name].dtype))
    if columns[name]:
        first = columns[name][0]
        if first.size != tensor.size:
            raise refuse(f'Expecting tensor size: {first.size} but got: {tensor.size}')
        if first.shape != tensor.shape:
            shapes = [f'[{",".join(map(str, each.shape))}]' for each in (first, tensor)]
            raise refuse(f'Expecting shape {shapes[0]} but got: {shapes[1]}')
    columns[name].append(tensor)


def _stack(column: list[Array]) -> Array:
    stacked = np.empty((len(column), *column[0].shape), column[0].dtype)
    for place, tensor in enumerate(column):
        stacked[place] = tensor if tensor.ndim else tensor[()]
    return stacked


def _read_columns(value: Any, inputs: Inputs) -> dict[str, Array]:
    """Reads the column form: a tensor for each input, or the tensor itself if there is only one input."""
    kinds = {name: tf.dtypes.as_dtype(info.dtype) for name, info in inputs.items()}
    if not _is_named(value):
        if len(inputs) > 1:
            raise refuse(
                'inputs is a plain value/list, but expecting an object as multiple input tensors required as per '
                'tensorinfo_map'
            )
        return {name: _read_tensor(value, kind) for name, kind in kinds.items()}
    for name in inputs:
        if name not in value:
            raise refuse(f"Missing named input: {name} in 'inputs' object.")
    return {name: _read_tensor(value[name], kind) for name, kind in kinds.items()}


def read_inputs(body: dict[str, Any], inputs: Inputs) -> tuple[dict[str, Array], Form]:
    """Reads the tensors of a request.

    Args:
      body: from `parse_object`.
      inputs: the inputs of the signature.

    Returns:
      The tensors by name, and the form that the answer must have too.

    Raises:
      ServiceError: they do not fit the signature's inputs, or have neither form.
    """
    if 'instances' in body and 'inputs' in body:
        raise refuse(
            f"JSON Value: {_show(body)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to "
            'exist '
        )
    if not inputs:
        raise refuse(f'Failed to get input map for signature: {read_signature_name(body) or "DEFAULT"}')
    if 'inputs' in body:
        return _read_columns(body['inputs'], inputs), 'column'
    if 'instances' not in body:
        raise refuse("Missing 'inputs' or 'instances' key")
    rows = body['instances']
    if not isinstance(rows, list):
        raise refuse(f"JSON Value: {_show(body)} Expecting 'instances' to be an list/array")
    if not rows:
        raise refuse(f"JSON Value: {_show(body)} No values in 'instances' array")
    return _read_rows(rows, inputs), 'row'


def _write_elements(name: str, values: Array) -> list[str]:
    """Writes each element of a tensor as JSON."""
    flat = np.ravel(values)
    if flat.dtype == object:
        if name.endswith('_bytes'):  # TensorFlow Serving's rule for what is not a text
            return [f'{{"b64": "{base64.b64encode(element).decode()}"}}' for element in flat]
        return [json.dumps(element.decode('utf-8', 'surrogateescape'), ensure_ascii=False) for element in flat]
    if flat.dtype == bool:
        return ['true' if element else 'false' for element in flat]
    if not np.issubdtype(flat.dtype, np.floating):
        return [str(element) for element in flat.tolist()]
    texts: list[str] = flat.astype(str).tolist()  # the shortest text that is read as the same number
    if np.isfinite(flat).all():
        return texts
    return [{'nan': 'NaN', 'inf': 'Infinity', '-inf': '-Infinity'}.get(text, text) for text in texts]


def _nest(elements: list[str], shape: tuple[int, ...]) -> str:
    """Joins elements to lists of lists of a shape."""
    for axis in reversed(range(len(shape))):
        size, lists = shape[axis], math.prod(shape[:axis])
        elements = [f'[{", ".join(elements[place * size : (place + 1) * size])}]' for place in range(lists)]
    return elements[0]


def write_outputs(outputs: dict[str, Array], form: Form) -> bytes:
    """Writes the body of an answer in the form of its request.

    Raises:
      ServiceError: the row form cannot hold the outputs, because they are not one for each row.
    """
    if form == 'column':
        columns = {name: _nest(_write_elements(name, values), values.shape) for name, values in sorted(outputs.items())}
        return _finish('outputs', _join(columns) if len(columns) > 1 else next(iter(columns.values())))
    rows: list[dict[str, str]] = []
    for name, values in sorted(outputs.items()):
        if not values.ndim:
            raise refuse(f'Tensor name: {name} has no shape information ')
        if rows and len(rows) != len(values):
            raise refuse(f'Tensor name: {name} has inconsistent batch size: {len(values)} expecting: {len(rows)}')
        rows = rows or [{} for _ in values]
        elements = _write_elements(name, values)
        size = len(elements) // len(values) if len(values) else 0
        for place, row in enumerate(rows):
            row[name] = _nest(elements[place * size : (place + 1) * size], values.shape[1:])
    texts = [_join(row) if len(row) > 1 else next(iter(row.values())) for row in rows]
    return _finish('predictions', f'[{", ".join(texts)}]')


def _join(named: dict[str, str]) -> str:
    return '{' + ', '.join(f'{json.dumps(name)}: {text}' for name, text in named.items()) + '}'


def _finish(key: str, text: str) -> bytes:
    return f'{{"{key}": {text}}}'.encode('utf-8', 'surrogateescape')
