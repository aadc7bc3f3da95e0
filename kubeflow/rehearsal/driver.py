"""What Kubeflow's driver does around a step, here: the order of the tasks, their inputs and outputs.

Each function names the one it stands for, in backend/src/v2 of kubeflow/pipelines.
"""

import graphlib
import json
from typing import Any, NamedTuple

from components.errors import PipelineError, UsageError
from kubeflow.mirrors import LOGS_KEY, to_path
from kubeflow.package import Document

_RUN_PLACEHOLDERS = ('{{$.pipeline_job_name}}', '{{$.pipeline_job_uuid}}')


class Outputs(NamedTuple):
    """What became of a task.

    artifacts: RuntimeArtifacts by key.
    parameters: values by key.
    state: as ML Metadata has it; NOT_TRIGGERED where its condition is false, or one before it did not end well.
    """

    artifacts: dict[str, Document]
    parameters: dict[str, Any]
    state: str = 'COMPLETE'


NOT_TRIGGERED = Outputs({}, {}, 'NOT_TRIGGERED')
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


def find_obstacle(task: Document, sources: set[str], done: Context) -> str | None:
    """The task that keeps another, which comes after it, from running; None where there is none.

    Argo starts a task where all before it have succeeded; a skipped one has not (argocompiler/dag.go: depends). An exit
    task is a hook of each task before it: it runs after one that has failed too, but not after a skipped one
    (argocompiler/common.go: addExitTask).
    """
    is_exit_task = task.get('triggerPolicy', {}).get('strategy') == 'ALL_UPSTREAM_TASKS_COMPLETED'
    good = ('COMPLETE', 'FAILED') if is_exit_task else ('COMPLETE',)
    bad = sorted(source for source in sources if done[source].state not in good)
    return None if not bad or (is_exit_task and len(bad) < len(sources)) else bad[0]


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
        return _take(done[source['producerTask']].parameters, source['producerTask'], source['outputParameterKey'])
    raise PipelineError(f'The rehearsal does not know inputs such as {json.dumps(spec)}.')


def resolve_artifact(spec: Document, given: dict[str, Document], done: Context) -> Document:
    """The artifact of a task's input (driver/resolve.go: resolveInputArtifact)."""
    if 'componentInputArtifact' in spec:
        return given[spec['componentInputArtifact']]
    source = spec['taskOutputArtifact']
    return _take(done[source['producerTask']].artifacts, source['producerTask'], source['outputArtifactKey'])


def _take(outputs: dict[str, Any], producer: str, key: str) -> Any:
    if key not in outputs:
        raise UsageError(f'{producer} gave no {key}, which a task after it takes.')
    return outputs[key]


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
    logs = {LOGS_KEY: {'artifactType': {'schemaTitle': 'system.Artifact'}}}
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
        for name, spec in {**definitions.get('artifacts', {}), **logs}.items()
    }
    parameters = {name: {'outputFile': f'{root}/tmp/kfp/outputs/{name}'} for name in definitions.get('parameters', {})}
    output_file = f'{to_path(task_root, root)}/output_metadata.json'
    return {'artifacts': artifacts, 'parameters': parameters, 'outputFile': output_file}


def collect_outputs(dag: Document, done: Context) -> Outputs:
    """What a DAG gives out of its tasks' outputs (driver/resolve.go: GetProducerTask).

    Args:
      dag: from the document. For a dsl.OneOf it names several tasks, and the first that has run counts.
      done: of the DAG's own tasks.
    """
    outputs, given = dag.get('outputs', {}), Outputs({}, {})
    for name, spec in outputs.get('artifacts', {}).items():
        for choice in spec['artifactSelectors']:
            task, key = done[choice['producerSubtask']], choice['outputArtifactKey']
            if key in task.artifacts:
                given.artifacts.setdefault(name, task.artifacts[key])
    for name, spec in outputs.get('parameters', {}).items():
        one_of = spec.get('valueFromOneof', {}).get('parameterSelectors')
        for choice in one_of or [spec['valueFromParameter']]:
            task, key = done[choice['producerSubtask']], choice['outputParameterKey']
            if key in task.parameters:
                given.parameters.setdefault(name, task.parameters[key])
    return given
