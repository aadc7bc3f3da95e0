"""Conditions against what Kubeflow's driver makes of them with cel-go: backend/src/v2/expression/expression_test.go."""

import re

import pytest

from components.errors import UsageError
from kubeflow.conditions import decide_condition

ARTIFACT = {
    'name': '7',
    'uri': 'minio://bucket/model',
    'type': {'instanceSchema': ''},
    'metadata': {'accuracy': 0.95, 'blessed': 1, 'name': 'resnet'},
}
INPUTS = {
    'parameterValues': {
        'type': 'foo',
        'num': 1,
        'rate': 2.7,
        'loud': True,
        'text': '12',
        'list': [1, 'x'],
        'json': '{"a": 3, "b": [1]}',
        'none': None,
    },
    'artifacts': {'model': {'artifacts': [ARTIFACT]}},
}


def decide(condition: str) -> bool:
    """$NAME stands for a parameter, @ for the artifact."""
    condition = re.sub(r'\$(\w+)', r"inputs.parameter_values['\1']", condition)
    return decide_condition('Push', condition.replace('@', "inputs.artifacts['model'].artifacts[0]"), INPUTS)


@pytest.mark.parametrize(
    ('condition', 'decision'),
    [
        ("$type=='foo'", True),
        ("$type=='foo2'", False),
        ('$num == 1', True),
        ("$type=='foo' && $num == 1.0", True),
        ("@.metadata['accuracy']*100.0 > 90.0", True),
        ("@.metadata['accuracy']*100.0 <= 90.0", False),
    ],
)
def test_the_servers_own_examples_are_decided_as_there(condition, decision):
    assert decide(condition) is decision


@pytest.mark.parametrize(
    ('condition', 'decision'),
    [
        ('int($num) > 5', False),  # dsl.If(num > 5)
        ('!(int($num) == 2) && $rate > double(2)', True),  # dsl.Elif after dsl.If
        ('$loud == true', True),
        ("!((@.uri == 'uri')) && (@.metadata['blessed'] == 1.0)", True),  # tfx.dsl.Cond in tfx.dsl.Cond
        ("((@.uri + '/x') == 'minio://bucket/model/x')", True),
    ],
)
def test_what_kfp_and_tfx_write_is_decided(condition, decision):
    assert decide(condition) is decision


@pytest.mark.parametrize(
    ('condition', 'decision'),
    [
        ('1 == $num', True),
        ('$num != 1', False),
        ('2 < $rate', True),
        ('$rate >= 3', False),
        ('int($rate) == 2', True),
        ('int($text) == 12', True),
        ('$type == 1', False),
        ('1 != $type', True),
        ('$loud == 1', False),
        ('$none == null', True),
        ('$type == null', False),
        ('1 in $list', True),
        ('2 in $list', False),
        ("$list.exists(x, x == 'x')", True),
        ('has(inputs.parameter_values.num)', True),
        ('has(inputs.parameter_values.other)', False),
        ("parseJson($json).a == 3 && parseJson($json)['b'][0] == 1.0", True),
        ("$other == 'a' || true", True),
        ("outputs.output_file == '' && @.type.instance_schema == ''", True),
    ],
)
def test_values_of_different_types_compare_as_in_cel_go(condition, decision):
    assert decide(condition) is decision


@pytest.mark.parametrize(
    ('condition', 'sentence'),
    [
        ("$type == 'foo", 'The condition of Push is no CEL: '),
        ("$type = 'foo'", 'The condition of Push is no CEL: '),
        ("$other == 'a'", r"fails on its inputs: inputs.parameter_values\['other'\] == 'a' \(no such key\)"),
        ('epochs > 1', r"fails on its inputs: epochs > 1 \(undeclared reference to 'epochs'\)"),
        ('$type > 1', r'\(found no matching overload\)'),
        ('$loud > 0', r'\(found no matching overload\)'),
        ('$num * 100 > 90', r'\(found no matching overload\)'),
        ("'f' in $type", r'\(found no matching overload\)'),
        ('int($type) > 1', r'fails on its inputs: int\('),
        ('parseJson($type).a == 1', r'fails on its inputs: parseJson\('),
        ("@.metadata['other'] == 1.0", r'\(no such key\)'),
        ('$type', r'is neither true nor false: inputs.parameter_values'),
    ],
)
def test_a_condition_that_the_server_cannot_decide_is_one_sentence(condition, sentence):
    with pytest.raises(UsageError, match=sentence) as error:
        decide(condition)
    assert '\n' not in str(error.value)
