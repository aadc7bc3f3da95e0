"""The rules for the inputs of tasks."""

from tests.kubeflow.lint.small_package import TASKS, assert_error, change

RUNTIME = {'runtimeParameter': 'epochs'}
NO_EXAMPLES = {'taskOutputArtifact': {'producerTask': 'Import', 'outputArtifactKey': 'records'}}

ERRORS = {
    'output that does not exist': (
        change(f'{TASKS}/Train/inputs/artifacts/examples', NO_EXAMPLES),
        'Train.inputs.artifacts.examples',
        "'records' of Import",
        'artifacts: examples',
    ),
    'input without a source': (change(f'{TASKS}/Train/inputs/parameters/epochs'), 'parameters.epochs', 'needs it', ''),
    'parameter that the pipeline does not have': (
        change(f'{TASKS}/Import/inputs/parameters/input_base/componentInputParameter', 'date'),
        'Import.inputs.parameters.input_base',
        "'date'",
        'Correct the name',
    ),
    'runtime parameter of schema 2.0': (
        change(f'{TASKS}/Train/inputs/parameters/epochs/runtimeValue', RUNTIME),
        'Train.inputs.parameters.epochs',
        'only runtimeValue.constant',
        'use_pipeline_spec_2_1',
    ),
    'constant of a different type': (
        change(f'{TASKS}/Train/inputs/parameters/epochs/runtimeValue/constant', '3'),
        'Train.inputs.parameters.epochs',
        'NUMBER_INTEGER',
        'Correct the value',
    ),
}


def test_a_broken_package_is_refused_with_the_place_and_what_mends_it(error_case):
    assert_error(*error_case)
