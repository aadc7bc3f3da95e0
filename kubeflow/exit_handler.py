"""Adds a task to a compiled pipeline that tells a webhook how the run ended, as kfp's own `dsl.ExitHandler` does it.

The tasks of the root move into a graph of their own, which becomes the first task of the root. A second task runs when
the first has ended, whether it succeeded or failed; its container runs `kubeflow.notify`.
"""

import copy
from typing import Any

from components.errors import UsageError

GRAPH = 'exit-handler-1'
TASK = 'notify'
EXECUTOR = f'{TASK}_executor'
PARAMETER = 'webhook'
_GRAPH_COMPONENT = f'comp-{GRAPH}'
_TASK_COMPONENT = f'comp-{TASK}'

# The driver fills these in: kfp.dsl's PIPELINE_JOB_NAME_PLACEHOLDER and PIPELINE_JOB_ID_PLACEHOLDER.
_PLACEHOLDERS = {'run_name': '{{$.pipeline_job_name}}', 'run_id': '{{$.pipeline_job_uuid}}'}


def add_exit_handler(spec: dict[str, Any], image: str, webhook: str) -> dict[str, Any]:
    """Adds the task that tells the webhook.

    The pipeline's parameters keep their names and are passed on to the new graph; the parameter `webhook` is added.
    Executors keep their labels, so that a platform spec still fits.

    Args:
      spec: a PipelineSpec as JSON, schema 2.1.0, whose tasks are all in the root; it is not changed.
      image: of the task's container; it must have our packages.
      webhook: default of the parameter `webhook`, an http or https address.

    Returns:
      The new PipelineSpec.

    Raises:
      UsageError: the webhook is not an http or https address, or a task, a component, an executor or a parameter
        already has a name that is needed here.
    """
    if not webhook.startswith(('http://', 'https://')):
        raise UsageError(f'--webhook takes an http or https address. Received: {webhook!r}')
    spec = copy.deepcopy(spec)
    root, components = spec['root'], spec['components']
    parameters = root.setdefault('inputDefinitions', {}).setdefault('parameters', {})
    names = {*root['dag']['tasks'], *components, *spec['deploymentSpec']['executors']}
    taken = sorted({GRAPH, TASK, _GRAPH_COMPONENT, _TASK_COMPONENT, EXECUTOR} & names | {PARAMETER} & {*parameters})
    if taken:
        raise UsageError(f'The exit handler needs names that the pipeline uses already: {", ".join(taken)}.')
    components[_GRAPH_COMPONENT] = _make_graph(root)
    components[_TASK_COMPONENT] = _make_component()
    spec['deploymentSpec']['executors'][EXECUTOR] = {'container': _make_container(image, spec['pipelineInfo']['name'])}
    root['dag'] = {'tasks': {GRAPH: _make_graph_task(parameters), TASK: _make_task()}}
    parameters[PARAMETER] = {'parameterType': 'STRING', 'defaultValue': webhook, 'isOptional': True}
    return spec


def _make_graph(root: dict[str, Any]) -> dict[str, Any]:
    """Makes a component of the root's tasks."""
    parameters = root['inputDefinitions']['parameters']
    graph: dict[str, Any] = {'dag': root['dag']}
    if parameters:
        types = {name: {'parameterType': parameter['parameterType']} for name, parameter in parameters.items()}
        graph['inputDefinitions'] = {'parameters': types}
    return graph


def _make_graph_task(parameters: dict[str, Any]) -> dict[str, Any]:
    """Makes the first task of the root, which runs the graph of all other tasks."""
    task: dict[str, Any] = {'componentRef': {'name': _GRAPH_COMPONENT}, 'taskInfo': {'name': GRAPH}}
    if parameters:
        task['inputs'] = {'parameters': {name: {'componentInputParameter': name} for name in parameters}}
    return task


def _make_component() -> dict[str, Any]:
    inputs: dict[str, dict[str, Any]] = {name: {'parameterType': 'STRING'} for name in (PARAMETER, *_PLACEHOLDERS)}
    inputs['status'] = {'parameterType': 'TASK_FINAL_STATUS', 'isOptional': True}
    return {'executorLabel': EXECUTOR, 'inputDefinitions': {'parameters': inputs}}


def _make_container(image: str, pipeline: str) -> dict[str, Any]:
    arguments = {'--webhook': PARAMETER, '--run-name': 'run_name', '--run-id': 'run_id', '--status': 'status'}
    args = ['--pipeline', pipeline]
    for flag, name in arguments.items():
        args += [flag, f"{{{{$.inputs.parameters['{name}']}}}}"]
    return {'image': image, 'command': ['python', '-m', 'kubeflow.notify'], 'args': args}


def _make_task() -> dict[str, Any]:
    """Makes the task that tells the webhook. It is not cached, so that every run sends its own message."""
    inputs: dict[str, dict[str, Any]] = {
        name: {'runtimeValue': {'constant': value}} for name, value in _PLACEHOLDERS.items()
    }
    inputs[PARAMETER] = {'componentInputParameter': PARAMETER}
    inputs['status'] = {'taskFinalStatus': {'producerTask': GRAPH}}
    return {
        'cachingOptions': {},
        'componentRef': {'name': _TASK_COMPONENT},
        'dependentTasks': [GRAPH],
        'inputs': {'parameters': inputs},
        'taskInfo': {'name': TASK},
        'triggerPolicy': {'strategy': 'ALL_UPSTREAM_TASKS_COMPLETED'},
    }
