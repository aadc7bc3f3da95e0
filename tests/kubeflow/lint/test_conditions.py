"""What the driver takes as a condition, and what it does not."""

import pytest

from kubeflow.lint.conditions import check_condition

VALUE = "inputs.parameter_values['pipelinechannel--draw-result']"

GOOD = [
    '',
    'true',
    f"{VALUE} == 'heads'",
    f"!({VALUE} == 'heads')",
    f'int({VALUE}) >= 3 && double({VALUE}) < -1.5e3 || {VALUE} != ""',
    f"{VALUE} in ['a', 'b',] ? true : 'x' + \"y\" == r'\\d'",
    f"parseJson({VALUE}).size() > 0x1F && {VALUE}.startsWith('a')",
    "inputs.artifacts['model'].artifacts[0].metadata['blessed'] == 1.0",
    f"parseJson({VALUE}).exists(item, item.name == 'x') && {{'a': 1}}['a'] == 1",
    '(inputs.parameter_values["a"] == 1)',
]

BAD = {
    f"{VALUE} = 'heads'": 'has "= \'heads\'" where',
    f'{VALUE} === 1': "has '= 1' where",
    f"{VALUE} == 'heads": 'has "\'heads" where',
    f"{VALUE} == 'heads' and true": "does not end before 'and'",
    f"({VALUE} == 'heads'": 'has its end where ) is needed',
    f'{VALUE} ==': 'ends where a value is needed',
    'not true': "reads 'not'; a condition can read inputs and outputs",
    "tasks.draw.outputs == 'heads'": "reads 'tasks'",
    "inputs.parameterValues['a'] == 1": 'reads inputs.parameterValues; inputs has ',
    "len(inputs.parameter_values['a']) > 1": 'calls len, which is no function',
    f'{VALUE}[': 'ends where a value is needed',
    '== 1': "has '==' where a value is needed",
    'size(1,) == 1': 'has a comma before )',
    '(' * 9999: 'is nested too deeply',
    '{{$.inputs}} == 1': "has '$.inputs}} == 1' where",
}


@pytest.mark.parametrize('condition', GOOD)
def test_an_expression_of_cel_has_no_problem(condition):
    assert list(check_condition('t', condition)) == []


@pytest.mark.parametrize('condition', BAD, ids=lambda condition: condition[:40])
def test_what_is_no_expression_is_an_error_that_says_where(condition):
    (problem,) = check_condition('t', condition)
    assert (problem.severity, problem.where) == ('error', 't.triggerPolicy.condition')
    assert BAD[condition] in problem.what
    assert problem.what.endswith(f'Received: {condition}')
