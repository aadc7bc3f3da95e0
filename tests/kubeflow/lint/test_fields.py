"""Unknown fields and values of a wrong type, and what the schemas of other servers have."""

import copy
import json

import pytest
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from kubeflow.lint.fields import VERSION_OF_FIELD
from kubeflow.lint.linter import lint_package
from tests.kubeflow.lint.small_package import (
    CONTAINER,
    PARAMETERS,
    PLATFORM,
    TASKS,
    assert_error,
    break_package,
    change,
    make_pipeline,
    make_platform,
    write,
)

SNAPSHOT = {'volumeName': 'old', 'mountPath': '/old', 'dataSource': {'kind': 'VolumeSnapshot', 'name': 'old'}}

ERRORS = {
    'unknown field': (
        change(f'{TASKS}/Train/retryPolicies', {}),
        'root.dag.tasks.Train.retryPolicies',
        'refuses the file',
        'Did you mean retryPolicy',
    ),
    'unknown field of an executor': (
        change(f'{CONTAINER}/environment', []),
        'deploymentSpec.executors.Train_executor.container.environment',
        'drops it silently',
        'Remove it',
    ),
    'unknown field of the platform': (
        change(f'{PLATFORM}/Train_executor/toleration', []),
        'platforms.kubernetes.deploymentSpec.executors.Train_executor.toleration',
        'drops it silently',
        'Did you mean tolerations',
    ),
    'unknown field of the pipeline in the platform': (
        change('platform/platforms/kubernetes/pipelineConfig', {'workspaces': {}}),
        'platforms.kubernetes.pipelineConfig.workspaces',
        '2.16 and 2.17 drop the whole platform document',
        'Did you mean workspace',
    ),
    'a platform value of a wrong type': (
        change(f'{PLATFORM}/Train_executor/nodeSelector/labels/gpu', True),
        'Train_executor.nodeSelector.labels.gpu',
        'does not take',
        'of type string',
    ),
    'text where protobuf wants a number': (
        change(f'{CONTAINER}/resources/memoryLimit', '8Gi'),
        'deploymentSpec.executors.Train_executor.container.resources.memoryLimit',
        "'8Gi' is of a type that this field does not take",
        'of type number',
    ),
    'fraction where protobuf wants a whole number': (
        change(f'{PLATFORM}/Train_executor/activeDeadlineSeconds', 1.5),
        'Train_executor.activeDeadlineSeconds',
        '1.5 is of a type',
        'of type integer',
    ),
    'text that is not a value of the enum': (
        change(f'{PARAMETERS}/data/parameterType', 'TEXT'),
        'root.inputDefinitions.parameters.data.parameterType',
        "'TEXT' is not a value that this field takes",
        'STRING, ',
    ),
}

VALID = {
    'a volume from a snapshot': change(f'{PLATFORM}/Train_executor/genericEphemeralVolume', [SNAPSHOT]),
    'a workspace': change('platform/platforms/kubernetes/pipelineConfig', {'workspace': {'size': '10Gi'}}),
}


def test_a_broken_package_is_refused_with_the_place_and_what_mends_it(error_case):
    assert_error(*error_case)


def test_what_the_server_and_kubernetes_take_is_not_a_problem(valid_case):
    assert lint_package(break_package(valid_case)) == []


def test_the_installed_schemas_still_lack_the_fields_that_are_listed_for_later_servers():
    installed = {
        message.full_name: {field.name for field in message.fields}
        for message in (
            kubernetes_executor_config_pb2.GenericEphemeralVolume.DESCRIPTOR,
            pipeline_spec_pb2.PipelineConfig.DESCRIPTOR,
        )
    }
    assert installed.keys() == VERSION_OF_FIELD.keys()
    for message, versions in VERSION_OF_FIELD.items():
        later = {field for field, version in versions.items() if version != '2.16'}
        assert not later & installed[message], 'an upgrade brought these fields: take them out of the list'


def list_places(value, place=()) -> list[tuple]:
    """The paths of all values in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, item in items for found in list_places(item, (*place, key)))]


@pytest.mark.parametrize('odd', [[['x']], float('nan'), {1: 2}])
def test_values_of_a_wrong_kind_are_problems_with_a_place_and_never_a_traceback(odd):
    plain = json.loads(json.dumps([make_pipeline(), make_platform()]))
    problems = []
    for *place, last in list_places(plain)[1:]:
        documents = copy.deepcopy(plain)
        parent = documents
        for key in place:
            parent = parent[key]
        parent[last] = odd
        problems += lint_package(write(*documents))
    assert len(problems) > 100
    assert all(problem.where and problem.mend for problem in problems)
