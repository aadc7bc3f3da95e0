"""The part of Kubeflow's driver in the rehearsal: the order of tasks, their inputs, and where their outputs go.

Each function names the function of the server that it follows, in backend/src/v2 of kubeflow/pipelines.
"""

import graphlib
import json
import uuid
from typing import Any, NamedTuple, TypeVar

from components.errors import PipelineError, UsageError
from kubeflow.mirrors import LOGS_KEY, to_path
from kubeflow.package import Document

Value = TypeVar('Value')


class Run(NamedTuple):
    """One run of a package.

    id: in the URIs of artifacts; a server makes a UUID.
    name: as people see it.
    workflow: the name of the workflow in Kubernetes.
    """

    id: str
    name: str
    workflow: str


class Outputs(NamedTuple):
    """The outputs and the state of a task.

    artifacts: RuntimeArtifacts by output key.
    parameters: values by output key.
    state: as in ML Metadata, COMPLETE or FAILED; NOT_TRIGGERED if a task that it depends on kept it from running.
    """

    artifacts: dict[str, Document]
    parameters: dict[str, Any]
    state: str = 'COMPLETE'


NOT_TRIGGERED = Outputs({}, {}, 'NOT_TRIGGERED')
Context = dict[str, Outputs]
"""The outputs of the tasks of one DAG that have run or were skipped, by name."""


def order_tasks(tasks: Document) -> dict[str, set[str]]:
    """Orders the tasks of a DAG by their dependencies.

    Args:
      tasks: of the DAG, by name.

    Returns:
      For each task the names of the tasks that it depends on; a task comes after all of these.

    Raises:
      UsageError: tasks depend on each other in a circle, or on a task that does not exist.
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
    """Finds the reason why a task does not run.

    Argo starts a task when all tasks that it depends on have succeeded (argocompiler/dag.go: depends). It starts an
    exit task when one of them has succeeded or failed, but not when all were skipped (argocompiler/common.go:
    addExitTask).

    Args:
      task: of the document.
      sources: the names of the tasks that it depends on.
      done: see Context.

    Returns:
      The name of the task that keeps it from running; None if it runs.
    """
    is_exit_task = task.get('triggerPolicy', {}).get('strategy') == 'ALL_UPSTREAM_TASKS_COMPLETED'
    good = ('COMPLETE', 'FAILED') if is_exit_task else ('COMPLETE',)
    bad = sorted(source for source in sources if done[source].state not in good)
    return None if not bad or (is_exit_task and len(bad) < len(sources)) else bad[0]


def resolve_parameter(spec: Document, given: dict[str, Any], done: Context, run: Run) -> Any:
    """Resolves an input parameter of a task (driver/resolve.go: resolveInputParameter).

    Args:
      spec: of the input, from the task.
      given: parameters of the DAG that the task is in.
      done: see Context.
      run: fills in placeholders.

    Returns:
      The value; None if it has none.

    Raises:
      UsageError: the task that should give it does not have that output.
      PipelineError: the input is of a kind that the rehearsal does not know.
    """
    if 'runtimeValue' in spec:
        constant = spec['runtimeValue'].get('constant')
        placeholders = {'{{$.pipeline_job_name}}': run.name, '{{$.pipeline_job_resource_name}}': run.workflow}
        placeholders['{{$.pipeline_job_uuid}}'] = run.id
        return placeholders.get(constant, constant) if isinstance(constant, str) else constant
    if 'taskFinalStatus' in spec:
        producer = spec['taskFinalStatus']['producerTask']
        state = done[producer].state
        return {'state': state, 'pipelineTaskName': producer, 'pipelineJobResourceName': run.workflow, 'error': {}}
    if 'componentInputParameter' in spec:
        return given.get(spec['componentInputParameter'])
    if 'taskOutputParameter' in spec:
        source = spec['taskOutputParameter']
        return _take(done[source['producerTask']].parameters, source['producerTask'], source['outputParameterKey'])
    raise PipelineError(f'The rehearsal does not know inputs such as {json.dumps(spec)}.')


def resolve_artifact(spec: Document, given: dict[str, Document], done: Context) -> Document:
    """Resolves an input artifact of a task (driver/resolve.go: resolveInputArtifact).

    Args:
      spec: of the input, from the task.
      given: artifacts of the DAG that the task is in.
      done: see Context.

    Returns:
      A RuntimeArtifact.

    Raises:
      UsageError: the task that should give it does not have that output.
    """
    if 'componentInputArtifact' in spec:
        return given[spec['componentInputArtifact']]
    source = spec['taskOutputArtifact']
    return _take(done[source['producerTask']].artifacts, source['producerTask'], source['outputArtifactKey'])


def _take(outputs: dict[str, Value], producer: str, key: str) -> Value:
    if key not in outputs:
        raise UsageError(f'{producer} has no output {key}, which a task after it reads.')
    return outputs[key]


def fill_defaults(values: dict[str, Any], definitions: Document) -> dict[str, Any]:
    """Adds the defaults of parameters that have no value (component/launcher_v2.go: addDefaultParams).

    Args:
      values: by name.
      definitions: `inputDefinitions` of the component.
    """
    parameters = definitions.get('parameters', {})
    filled: dict[str, Any] = {name: spec['defaultValue'] for name, spec in parameters.items() if 'defaultValue' in spec}
    filled.update({name: value for name, value in values.items() if value is not None})
    return filled


def provision_outputs(definitions: Document, task_root: str, root: str) -> Document:
    """Decides where a step writes its outputs (driver/driver.go: provisionOutputs).

    Args:
      definitions: `outputDefinitions` of the component.
      task_root: URI below which this task of this run puts its artifacts.
      root: see `kubeflow.mirrors.to_path`.

    Returns:
      `outputs` of an ExecutorInput.
    """
    task_root = f'{task_root}/{uuid.uuid4()}'
    logs = {LOGS_KEY: {'artifactType': {'schemaTitle': 'system.Artifact'}}}
    artifacts = {}
    for name, spec in {**definitions.get('artifacts', {}), **logs}.items():
        artifact = {'name': name, 'uri': f'{task_root}/{name}', 'type': spec['artifactType']}
        metadata = {'metadata': spec['metadata']} if spec.get('metadata') else {}
        artifacts[name] = {'artifacts': [{**artifact, **metadata}]}
    parameters = {name: {'outputFile': f'{root}/tmp/kfp/outputs/{name}'} for name in definitions.get('parameters', {})}
    output_file = f'{to_path(task_root, root)}/output_metadata.json'
    return {'artifacts': artifacts, 'parameters': parameters, 'outputFile': output_file}


def collect_outputs(dag: Document, done: Context) -> Outputs:
    """Takes the outputs of a DAG from the outputs of its tasks (driver/resolve.go: GetProducerTask).

    Each output has one source: several sources (dsl.OneOf) come only with conditions, which are refused before the run.

    Args:
      dag: of the document.
      done: of the DAG's own tasks.

    Raises:
      UsageError: a task does not have the output that the DAG should pass on.
    """
    outputs, given = dag.get('outputs', {}), Outputs({}, {})
    for name, spec in outputs.get('artifacts', {}).items():
        [source] = spec['artifactSelectors']
        task, key = source['producerSubtask'], source['outputArtifactKey']
        given.artifacts[name] = _take(done[task].artifacts, task, key)
    for name, spec in outputs.get('parameters', {}).items():
        source = spec['valueFromParameter']
        task, key = source['producerSubtask'], source['outputParameterKey']
        given.parameters[name] = _take(done[task].parameters, task, key)
    return given
