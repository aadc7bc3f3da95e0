"""Makes a compiled pipeline tell a webhook how its run ended, in the form of kfp's own `dsl.ExitHandler`.

The tasks of the root move into a sub-graph, and a second task of the root runs when that has ended, however it did.
`kubeflow.notify` is what it runs.
"""

import copy

from components.errors import UsageError

GRAPH = 'exit-handler-1'
TASK = 'notify'
EXECUTOR = f'{TASK}_executor'
PARAMETER = 'webhook'
_GRAPH_COMPONENT = f'comp-{GRAPH}'
_TASK_COMPONENT = f'comp-{TASK}'

# What the driver fills in: kfp.dsl's PIPELINE_JOB_NAME_PLACEHOLDER and PIPELINE_JOB_ID_PLACEHOLDER.
_PLACEHOLDERS = {'run_name': '{{$.pipeline_job_name}}', 'run_id': '{{$.pipeline_job_uuid}}'}


def add_exit_handler(spec: dict, image: str, webhook: str) -> dict:
    """Adds the task that reports the outcome.

    The pipeline's parameters stay at the root, under their names, and are passed to the sub-graph; `webhook` joins
    them. Executors keep their labels, so that a platform spec still fits.

    Args:
      spec: a PipelineSpec as a dict, schema 2.1.0, whose tasks are all in the root; it is not changed.
      image: with this package in it.
      webhook: default of the pipeline's new parameter `webhook`, an http or https address.

    Returns:
      The new PipelineSpec.

    Raises:
      UsageError: the address is none, or a task, a component or a parameter has a name that is needed here.
    """
    if not webhook.startswith(('http://', 'https://')):
        raise UsageError(f'A webhook is an http or https address. Received: {webhook!r}')
    spec = copy.deepcopy(spec)
    root, components = spec['root'], spec['components']
    parameters = root.setdefault('inputDefinitions', {}).setdefault('parameters', {})
    names = {*root['dag']['tasks'], *components, *spec['deploymentSpec']['executors']}
    taken = sorted({GRAPH, TASK, _GRAPH_COMPONENT, _TASK_COMPONENT, EXECUTOR} & names | {PARAMETER} & {*parameters})
    if taken:
        raise UsageError(f'The exit handler needs names that the pipeline uses: {", ".join(taken)}.')
    components[_GRAPH_COMPONENT] = _make_graph(root)
    components[_TASK_COMPONENT] = _make_component()
    spec['deploymentSpec']['executors'][EXECUTOR] = {'container': _make_container(image, spec['pipelineInfo']['name'])}
    root['dag'] = {'tasks': {GRAPH: _make_graph_task(parameters), TASK: _make_task()}}
    parameters[PARAMETER] = {'parameterType': 'STRING', 'defaultValue': webhook, 'isOptional': True}
    return spec


def _make_graph(root: dict) -> dict:
    """The root's tasks as a component."""
    parameters = root['inputDefinitions']['parameters']
    graph = {'dag': root['dag']}
    if parameters:
        types = {name: {'parameterType': parameter['parameterType']} for name, parameter in parameters.items()}
        graph['inputDefinitions'] = {'parameters': types}
    return graph


def _make_graph_task(parameters: dict) -> dict:
    """The task of the root that runs all others."""
    task = {'componentRef': {'name': _GRAPH_COMPONENT}, 'taskInfo': {'name': GRAPH}}
    if parameters:
        task['inputs'] = {'parameters': {name: {'componentInputParameter': name} for name in parameters}}
    return task


def _make_component() -> dict:
    inputs = {name: {'parameterType': 'STRING'} for name in (PARAMETER, *_PLACEHOLDERS)}
    inputs['status'] = {'parameterType': 'TASK_FINAL_STATUS', 'isOptional': True}
    return {'executorLabel': EXECUTOR, 'inputDefinitions': {'parameters': inputs}}


def _make_container(image: str, pipeline: str) -> dict:
    arguments = {'--webhook': PARAMETER, '--run-name': 'run_name', '--run-id': 'run_id', '--status': 'status'}
    args = ['--pipeline', pipeline]
    for flag, name in arguments.items():
        args += [flag, f"{{{{$.inputs.parameters['{name}']}}}}"]
    return {'image': image, 'command': ['python', '-m', 'kubeflow.notify'], 'args': args}


def _make_task() -> dict:
    """The task that reports; never cached, since a message that was sent once says nothing of this run."""
    inputs = {name: {'runtimeValue': {'constant': value}} for name, value in _PLACEHOLDERS.items()}
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
