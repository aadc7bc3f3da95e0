"""The rules for {{ in values."""

from kubeflow.lint.linter import lint_package
from tests.kubeflow.lint.small_package import (
    CONTAINER,
    PARAMETERS,
    PLATFORM,
    TASKS,
    assert_error,
    break_package,
    change,
)

ERRORS = {
    'variable of Argo in the environment': (
        change(f'{CONTAINER}/env', [{'name': 'RUN', 'value': '{{workflow.nope}}'}]),
        'Train_executor.container.env.RUN',
        'Received: {{workflow.nope}}',
        '{{$.pipeline_job_name}}',
    ),
    "placeholder of the driver's in the environment, where nothing fills it in": (
        change(f'{CONTAINER}/env', [{'name': 'RUN', 'value': 'a {{$.pipeline_job_name}}'}]),
        'Train_executor.container.env.RUN',
        'refuses or replaces',
        'Write the text',
    ),
    'variable of Argo in the default of a parameter': (
        change(f'{PARAMETERS}/data/defaultValue', '/data/{{workflow.name}}'),
        'root.inputDefinitions.parameters.data',
        'Received: /data/{{workflow.name}}',
        '{{$.pipeline_job_name}}',
    ),
    'variable of Argo within the constant of an input': (
        change(f'{TASKS}/Push/inputs/parameters/push_destination/runtimeValue/constant', '["/serving/{{pod.name}}"]'),
        'Push.inputs.parameters.push_destination',
        '{{pod.name}}',
        'without {{',
    ),
    'variable of Argo in the platform spec': (
        change(f'{PLATFORM}/Train_executor/nodeSelector/labels/gpu', '{{workflow.name}}'),
        'executors.Train_executor',
        '{{workflow.name}}',
        'without {{',
    ),
}


def test_a_broken_package_is_refused_with_the_place_and_what_mends_it(error_case):
    assert_error(*error_case)


def test_what_the_driver_fills_in_has_no_problem():
    where = f'{TASKS}/Push/inputs/parameters/push_destination/runtimeValue/constant'
    assert lint_package(break_package(change(where, '{{$.pipeline_job_name}}'))) == []
