"""What Kubeflow's driver and launcher do between the steps, here: inputs, output URIs, placeholders, recorded outputs.

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


def _format_value(value: Any) -> str:
    """A parameter as a placeholder's text: numbers in their shortest form, lists and objects as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def fill_placeholders(argument: str, executor_input: Document, root: str) -> str:
    """An argument of a container's command (component/launcher_v2.go: compileCmdAndArgs)."""
    inputs, outputs = executor_input['inputs'], executor_input['outputs']
    argument = argument.replace('{{$}}', json.dumps(executor_input))
    for name, value in inputs['parameterValues'].items():
        argument = argument.replace(f"{{{{$.inputs.parameters['{name}']}}}}", _format_value(value))
    for side, artifacts in (('inputs', inputs['artifacts']), ('outputs', outputs['artifacts'])):
        for name, entry in artifacts.items():
            uri = entry['artifacts'][0]['uri']
            argument = argument.replace(f"{{{{$.{side}.artifacts['{name}'].uri}}}}", uri)
            argument = argument.replace(f"{{{{$.{side}.artifacts['{name}'].path}}}}", to_path(uri, root))
    for name, entry in outputs['parameters'].items():
        argument = argument.replace(f"{{{{$.outputs.parameters['{name}'].output_file}}}}", entry['outputFile'])
    return argument


def _record_value(value: Any) -> Any:
    """A metadata value as ML Metadata gives it back (metadata/converter.go: StructValueToMLMDValue)."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return {'list': value}
    return {'struct': value} if isinstance(value, dict) else value


def record_artifact(name: str, number: int, provisioned: Document, said: Document) -> Document:
    """An output as the next step is given it (metadata/client.go: RecordArtifact, ToRuntimeArtifact).

    Args:
      name: of the output.
      number: stands for its id in ML Metadata.
      provisioned: from `provision_outputs`.
      said: what the step's output file says of it.
    """
    metadata = {**provisioned['metadata'], **said.get('metadata', {})}
    return {
        'name': str(number),
        'uri': said.get('uri') or provisioned['uri'],
        'type': {'instanceSchema': ''},  # which Kubeflow forgets (metadata/client.go: GetOutputArtifactsByExecutionId)
        'metadata': {
            'display_name': name,
            'store_session_info': '{}',
            **{key: _record_value(value) for key, value in metadata.items() if value is not None},
        },
    }
