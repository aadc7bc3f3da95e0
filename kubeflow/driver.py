"""What Kubeflow's driver does before a step, here: the order of the tasks, their inputs, their outputs' URIs.

Each function names the one it stands for, in backend/src/v2 of kubeflow/pipelines.
"""

import graphlib
import json
from typing import Any, NamedTuple

from components.errors import PipelineError, UsageError
from kubeflow.mirrors import to_path
from kubeflow.package import Document

_RUN_PLACEHOLDERS = ('{{$.pipeline_job_name}}', '{{$.pipeline_job_uuid}}')


class Outputs(NamedTuple):
    """What became of a task.

    artifacts: RuntimeArtifacts by key.
    parameters: values by key.
    state: as ML Metadata has it; NOT_TRIGGERED where one before it failed.
    """

    artifacts: dict[str, Document]
    parameters: dict[str, Any]
    state: str = 'COMPLETE'


Context = dict[str, Outputs]  # of the tasks of one DAG whose turn has come, by name


def order_tasks(tasks: Document) -> dict[str, set[str]]:
    """The names of a DAG's tasks, each after those that it depends on, with these.

    Raises:
      UsageError: they depend on each other in a circle, or on one that is not there.
    """
    graph = {}
    for name, task in tasks.items():
        inputs = task.get('inputs', {})
        sources = [spec.get('taskOutputArtifact') for spec in inputs.get('artifacts', {}).values()]
        sources += [spec.get('taskOutputParameter') for spec in inputs.get('parameters', {}).values()]
        graph[name] = {*task.get('dependentTasks', []), *(source['producerTask'] for source in sources if source)}
        missing = sorted(graph[name] - set(tasks))
        if missing:
            raise UsageError(f'{name} depends on {missing[0]}, which the package does not have.')
    try:
        return {name: graph[name] for name in graphlib.TopologicalSorter(graph).static_order()}
    except graphlib.CycleError as error:
        raise UsageError(f'These tasks depend on each other in a circle: {", ".join(error.args[1])}.') from error


def resolve_parameter(spec: Document, given: dict[str, Any], done: Context, run_id: str) -> Any:
    """The value of a task's input parameter (driver/resolve.go: resolveInputParameter); None where it has none.

    Args:
      spec: of the input, from the task.
      given: parameters of the DAG that the task is in.
      done: see Context.
      run_id: also stands for the run's name.
    """
    if 'runtimeValue' in spec:
        constant = spec['runtimeValue'].get('constant')
        return run_id if constant in _RUN_PLACEHOLDERS else constant
    if 'taskFinalStatus' in spec:
        producer = spec['taskFinalStatus']['producerTask']
        state = done[producer].state
        return {'state': state, 'pipelineTaskName': producer, 'pipelineJobResourceName': run_id, 'error': {}}
    if 'componentInputParameter' in spec:
        return given.get(spec['componentInputParameter'])
    if 'taskOutputParameter' in spec:
        source = spec['taskOutputParameter']
        return done[source['producerTask']].parameters[source['outputParameterKey']]
    raise PipelineError(f'The rehearsal does not know inputs such as {json.dumps(spec)}.')


def resolve_artifact(spec: Document, given: dict[str, Document], done: Context) -> Document:
    """The artifact of a task's input (driver/resolve.go: resolveInputArtifact)."""
    if 'componentInputArtifact' in spec:
        return given[spec['componentInputArtifact']]
    source = spec['taskOutputArtifact']
    return done[source['producerTask']].artifacts[source['outputArtifactKey']]


def fill_defaults(values: dict[str, Any], definitions: Document) -> dict[str, Any]:
    """Parameters with the defaults of those that are not given (component/launcher_v2.go: addDefaultParams)."""
    parameters = definitions.get('parameters', {})
    defaults = {name: spec['defaultValue'] for name, spec in parameters.items() if 'defaultValue' in spec}
    return {**defaults, **{name: value for name, value in values.items() if value is not None}}


def provision_outputs(definitions: Document, task_root: str, root: str) -> Document:
    """Where a step writes (driver/driver.go: provisionOutputs).

    Args:
      definitions: of the component's outputs.
      task_root: URI of the task in this run.
      root: see `kubeflow.mirrors`.
    """
    artifacts = {
        name: {
            'artifacts': [
                {
                    'name': name,
                    'uri': f'{task_root}/{name}',
                    'type': spec['artifactType'],
                    'metadata': spec.get('metadata', {}),
                }
            ]
        }
        for name, spec in definitions.get('artifacts', {}).items()
    }
    parameters = {name: {'outputFile': f'{root}/tmp/kfp/outputs/{name}'} for name in definitions.get('parameters', {})}
    output_file = f'{to_path(task_root, root)}/output_metadata.json'
    return {'artifacts': artifacts, 'parameters': parameters, 'outputFile': output_file}
