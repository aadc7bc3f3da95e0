"""The JSON of TensorFlow Serving's REST interface: its two forms, and what is refused in which words."""

import base64
import json

import numpy as np
import pytest
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from pipeline.server.faults import ServiceError
from pipeline.server.rest_json import parse_object, read_inputs, read_signature_name, write_outputs


def declare(**kinds: int) -> dict[str, meta_graph_pb2.TensorInfo]:
    return {name: meta_graph_pb2.TensorInfo(dtype=kind) for name, kind in kinds.items()}


IMAGE = declare(image=types_pb2.DT_STRING)
PIXELS = declare(image=types_pb2.DT_UINT8)
NUMBERS = declare(x=types_pb2.DT_FLOAT)
TWO = declare(image=types_pb2.DT_STRING, weight=types_pb2.DT_FLOAT)
B64 = {'b64': base64.b64encode(b'\x00\xff').decode()}


@pytest.mark.parametrize(
    ('body', 'inputs', 'form', 'expected'),
    [
        ({'instances': [B64, 'text']}, IMAGE, 'row', {'image': np.array([b'\x00\xff', b'text'], object)}),
        ({'instances': [{'image': B64}]}, IMAGE, 'row', {'image': np.array([b'\x00\xff'], object)}),
        ({'inputs': [B64]}, IMAGE, 'column', {'image': np.array([b'\x00\xff'], object)}),
        ({'inputs': {'image': [B64]}}, IMAGE, 'column', {'image': np.array([b'\x00\xff'], object)}),
        ({'inputs': []}, IMAGE, 'column', {'image': np.array([], object)}),
        ({'inputs': B64}, IMAGE, 'column', {'image': np.array(b'\x00\xff', object)}),
        ({'instances': [[[0, 255]], [[1, 2]]]}, PIXELS, 'row', {'image': np.array([[[0, 255]], [[1, 2]]], np.uint8)}),
        ({'instances': [1, 2.5]}, NUMBERS, 'row', {'x': np.array([1, 2.5], np.float32)}),
        (
            {'instances': [{'image': B64, 'weight': 2}]},
            TWO,
            'row',
            {'image': np.array([b'\x00\xff'], object), 'weight': np.array([2], np.float32)},
        ),
        (
            {'inputs': {'image': [B64], 'weight': [2]}},
            TWO,
            'column',
            {'image': np.array([b'\x00\xff'], object), 'weight': np.array([2], np.float32)},
        ),
    ],
)
def test_each_form_is_read(body, inputs, form, expected):
    found, found_form = read_inputs(body, inputs)
    assert found_form == form
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
        assert found[name].tolist() == values.tolist()


REFUSED = [
    (b'', 'JSON Parse error: The document is empty'),
    (b'{"instances": [', 'JSON Parse error: '),
    (b'[' * 200_000, 'JSON Parse error: '),
    (b'{"a": ' + b'9' * 5000 + b'}', 'JSON Parse error: '),
    (b'[1]', 'JSON Value: [1] Is not object'),
    (b'{"signature_name": 3, "instances": [1]}', "'signature_name' key must be a string value."),
    (b'{}', "Missing 'inputs' or 'instances' key"),
    (b'{"inputs": [], "instances": []}', "expecting only one of 'inputs' or 'instances' keys to exist"),
    (b'{"instances": {"a": 1}}', "Expecting 'instances' to be an list/array"),
    (b'{"instances": []}', "No values in 'instances' array"),
    (b'{"instances": [1]}', 'JSON Value: 1 Type: Number is not of expected type: string'),
    (b'{"instances": [true]}', 'JSON Value: true Type: True is not of expected type: string'),
    (b'{"instances": ["a", {"image": "b"}]}', 'Expecting value/list but got object at item 1 of input list'),
    (b'{"instances": [{"image": "b"}, "a"]}', 'Expecting object but got list at item 1 of input list'),
    (b'{"instances": [{"picture": "b"}]}', 'JSON object: does not have named input: picture'),
    (b'{"instances": [{}]}', 'keys must be equal to: image'),
    (b'{"instances": [["a"], "b"]}', 'Expecting shape [1] but got: []'),
    (b'{"instances": [["a"], ["b", "c"]]}', 'Expecting tensor size: 1 but got: 2'),
    (b'{"inputs": ["a", ["b"]]}', 'Encountered list at unexpected level: 1 expected < 1'),
    (b'{"inputs": [["a"], ["b", "c"]]}', 'Encountered list at unexpected size: 2 at level: 1 expected size: 1'),
    (b'{"inputs": [["a"], "b"]}', 'found at incorrect level: 2 in the JSON DOM. Expected at level: 2'),
    (b'{"inputs": {"picture": ["a"]}}', "Missing named input: image in 'inputs' object."),
    (b'{"instances": [{"b64": "*"}]}', 'Unable to base64 decode'),
    (b'{"instances": ["\\ud800"]}', 'JSON Parse error: The surrogate pair in string is invalid.'),
]


@pytest.mark.parametrize(('body', 'words'), REFUSED)
def test_what_is_no_request_is_refused_in_the_servers_words(body, words):
    def read() -> None:
        request = parse_object(body)
        read_signature_name(request)
        read_inputs(request, IMAGE)

    with pytest.raises(ServiceError) as caught:
        read()
    assert words in caught.value.message
    assert caught.value.code.name == 'INVALID_ARGUMENT'
    assert len(caught.value.message) < 800, 'a large request is not repeated in its error'


@pytest.mark.parametrize(
    ('value', 'inputs'), [(256, PIXELS), (-1, PIXELS), (1.5, PIXELS), ('1', NUMBERS), (None, NUMBERS)]
)
def test_a_number_that_its_type_does_not_hold_is_refused(value, inputs):
    with pytest.raises(ServiceError, match='is not of expected type'):
        read_inputs({'instances': [value]}, inputs)


def test_several_inputs_need_names():
    for body in ({'instances': ['a']}, {'inputs': ['a']}):
        with pytest.raises(ServiceError, match='multiple input tensors required'):
            read_inputs(body, TWO)


def test_a_single_output_is_a_plain_list_and_several_are_objects():
    label, probabilities = np.array([3, 5]), np.array([[0.1, 1], [0.25, 0]], np.float32)
    assert json.loads(write_outputs({'label': label}, 'row')) == {'predictions': [3, 5]}
    assert json.loads(write_outputs({'label': label}, 'column')) == {'outputs': [3, 5]}
    both = {'label': label, 'p': probabilities}
    rows = [{'label': 3, 'p': [0.1, 1.0]}, {'label': 5, 'p': [0.25, 0.0]}]
    assert json.loads(write_outputs(both, 'row')) == {'predictions': rows}
    columns = {'label': [3, 5], 'p': [[0.1, 1.0], [0.25, 0.0]]}
    assert json.loads(write_outputs(both, 'column')) == {'outputs': columns}


def test_numbers_are_written_so_that_the_same_float32_is_read():
    values = np.array([0.1, 1 / 3, 9e6, 1e-30, 3.4e38], np.float32)
    text = write_outputs({'x': values}, 'column')
    assert b'0.1,' in text, 'and without the digits of a double'
    assert np.array_equal(np.array(json.loads(text)['outputs'], np.float32), values)


def test_values_that_are_not_finite_are_written_as_tensorflow_serving_does():
    text = write_outputs({'x': np.array([np.nan, np.inf, -np.inf], np.float32)}, 'column')
    assert text == b'{"outputs": [NaN, Infinity, -Infinity]}'


def test_an_output_called_bytes_is_base64_and_other_strings_are_text():
    outputs = {'a_bytes': np.array([b'\xff'], object), 'b': np.array(['cät'.encode()], object)}
    assert json.loads(write_outputs(outputs, 'row')) == {'predictions': [{'a_bytes': {'b64': '/w=='}, 'b': 'cät'}]}


def test_empty_outputs_are_empty_lists():
    outputs = {'label': np.zeros([0], np.int64), 'p': np.zeros([0, 10], np.float32)}
    assert json.loads(write_outputs(outputs, 'column')) == {'outputs': {'label': [], 'p': []}}
    assert json.loads(write_outputs(outputs, 'row')) == {'predictions': []}
    assert json.loads(write_outputs({'p': np.zeros([2, 0], np.float32)}, 'column')) == {'outputs': [[], []]}
