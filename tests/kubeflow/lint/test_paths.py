"""The rules for paths that a step cannot reach."""

import re

from kubeflow.lint.linter import lint_package
from tests.conftest import PROJECT
from tests.kubeflow.lint.small_package import (
    CONTAINER,
    PARAMETERS,
    PLATFORM,
    assert_error,
    break_package,
    change,
    make_pipeline,
    make_platform,
    make_task,
    write,
)

IMAGE_HOME = re.search(r'HOME=(\S+)', (PROJECT / 'kubeflow/Dockerfile').read_text())[1]

ERRORS = {
    'path that is not mounted': (
        change(f'{PARAMETERS}/data/defaultValue', '/home/me/cifar10'),
        'root.dag.tasks.Import.inputs.parameters.input_base',
        '/home/me/cifar10',
        'volume',
    ),
    'path in JSON': (
        change(f'{PLATFORM}/Push_executor'),
        'root.dag.tasks.Push.inputs.parameters.push_destination',
        '/serving/model',
        'volume',
    ),
    'path in a folder that each pod has for itself': (
        change(f'{PARAMETERS}/data/defaultValue', '/tmp/cifar10'),
        'root.dag.tasks.Import.inputs.parameters.input_base',
        'no volume at /tmp/cifar10: it finds no files there, and files that it writes there are lost',
        'volume',
    ),
    'path in a mirror of the object store': (
        change(f'{PARAMETERS}/data/defaultValue', '/minio/cifar10'),
        'input_base',
        'no volume at /minio/cifar10: it finds no files there',
        'volume',
    ),
    'relative path': (change(f'{PARAMETERS}/data/defaultValue', 'runs/data'), 'input_base', 'is relative', 'volume'),
    'file URI': (change(f'{PARAMETERS}/data/defaultValue', 'file:///data'), 'input_base', 'file:///data', 'volume'),
    'path in the environment': (
        change(f'{CONTAINER}/env', [{'name': 'CACHE', 'value': '/home/me/cache'}]),
        'deploymentSpec.executors.Train_executor',
        'only this machine has: /home/me/cache.',
        'volume',
    ),
    "path in the home of a user whose name begins like the images' user": (
        change(f'{CONTAINER}/env', [{'name': 'CACHE', 'value': '/home/pipeline-me/cache'}]),
        'deploymentSpec.executors.Train_executor',
        'only this machine has: /home/pipeline-me/cache.',
        'volume',
    ),
}

VALID = {
    "a path in our images' home": change(f'{CONTAINER}/env', [{'name': 'KERAS_HOME', 'value': f'{IMAGE_HOME}/.keras'}]),
}


def test_a_broken_package_is_refused_with_the_place_and_what_mends_it(error_case):
    assert_error(*error_case)


def test_what_the_server_and_kubernetes_take_is_not_a_problem(valid_case):
    assert lint_package(break_package(valid_case)) == []


def test_a_path_is_followed_into_the_dag_of_an_exit_handler():
    spec, platform = make_pipeline(), make_platform()
    text = {'parameterType': 'STRING'}
    tasks = spec['root'].pop('dag')
    spec['components']['Steps'] = {'dag': tasks, 'inputDefinitions': {'parameters': {'data': text}}}
    steps = make_task('Steps', {'data': {'componentInputParameter': 'data'}}, {})
    spec['root']['dag'] = {'tasks': {'Steps': steps}}
    assert lint_package(write(spec, platform)) == []
    spec['root']['inputDefinitions']['parameters']['data']['defaultValue'] = '/home/me/cifar10'
    (problem,) = lint_package(write(spec, platform))
    assert problem.where == 'components.Steps.dag.tasks.Import.inputs.parameters.input_base'
