"""What the tasks of a package read: whether something gives it, and whether it has the type.

Called by kubeflow/lint/graph.py, once a task. The source of every rule is backend/src/v2/driver/resolve.go in
kubeflow/pipelines, where no other is named.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from kubeflow.lint.fields import Problem

_KINDS = {
    'number_value': {'NUMBER_DOUBLE', 'NUMBER_INTEGER'},
    'bool_value': {'BOOLEAN'},
    'list_value': {'LIST'},
    'struct_value': {'STRUCT', 'TASK_FINAL_STATUS', 'TASK_CONFIG'},
}


def describe_type_clash(value: Any, parameter_type: int) -> str:
    """How a constant differs from its parameter's type; '' if it fits. Anything fits STRING: the driver converts it.

    Args:
      value: a google.protobuf.Value.
      parameter_type: of ParameterType.ParameterTypeEnum.
    """
    known = pb.ParameterType.ParameterTypeEnum.DESCRIPTOR.values_by_number.get(parameter_type)
    name = known.name if known else str(parameter_type)
    if name == 'STRING' or name in _KINDS.get(value.WhichOneof('kind'), set()):
        return ''
    return f'{json_format.MessageToJson(value, indent=None)} is not of type {name}'


def check_inputs(where: str, task: Any, component: Any, parent: Any, components: Any) -> Iterator[Problem]:
    """Checks every input of a task, and that it leaves out none that its component needs.

    Args:
      where: the task's path.
      task: pb.PipelineTaskSpec.
      component: pb.ComponentSpec of the task.
      parent: pb.ComponentSpec with the DAG that the task is in.
      components: all, by name.
    """
    for name, value in sorted(task.inputs.parameters.items()):
        path = f'{where}.inputs.parameters.{name}'
        yield from _check_parameter(path, value, component.input_definitions.parameters.get(name), task, parent)
        if value.HasField('task_output_parameter'):
            output = value.task_output_parameter
            yield from _check_producer(
                path, output.producer_task, 'parameters', output.output_parameter_key, parent, components
            )
    for name, value in sorted(task.inputs.artifacts.items()):
        path = f'{where}.inputs.artifacts.{name}'
        if value.HasField('task_output_artifact'):
            output = value.task_output_artifact
            yield from _check_producer(
                path, output.producer_task, 'artifacts', output.output_artifact_key, parent, components
            )
        elif value.component_input_artifact not in parent.input_definitions.artifacts:
            what = f'It reads {value.component_input_artifact!r}, which is no artifact input of the DAG it is in.'
            yield Problem('error', path, what, 'Read the output of a task.')
    yield from _check_missing(where, task, component)


def _check_parameter(path: str, value: Any, definition: Any, task: Any, parent: Any) -> Iterator[Problem]:
    """resolveInputParameter."""
    kind = value.WhichOneof('kind')
    if kind == 'component_input_parameter':
        if value.component_input_parameter not in parent.input_definitions.parameters:
            what = f'It reads {value.component_input_parameter!r}, which is no parameter of the DAG it is in.'
            yield Problem('error', path, what, 'Mend the name, or define the parameter with the DAG.')
    elif kind == 'runtime_value':
        if value.runtime_value.WhichOneof('value') != 'constant':
            what = "The driver takes runtimeValue.constant alone, not the older schema's constantValue."
            yield Problem('error', path, what, 'Compile with use_pipeline_spec_2_1=True.')
        elif definition is not None and (
            clash := describe_type_clash(value.runtime_value.constant, definition.parameter_type)
        ):
            yield Problem('error', path, f'{clash}; the driver fails the step.', 'Mend the value or the type.')
    elif kind == 'task_final_status':
        if not task.dependent_tasks:
            what = 'It asks for the status of a task, and the task depends on none.'
            yield Problem('error', path, what, 'Name the task in dependentTasks.')
    elif kind is None:
        yield Problem('error', path, 'Nothing gives its value; the driver fails.', 'Give it a constant or a source.')


def _check_producer(path: str, producer: str, kind: str, key: str, parent: Any, components: Any) -> Iterator[Problem]:
    """argocompiler/dag.go addImplicitDependencies adds the dependency itself, and checks the task's name alone."""
    if producer not in parent.dag.tasks:
        yield Problem('error', path, f'It reads an output of {producer!r}, which is not a task here.', 'Mend the name.')
        return
    source = components.get(parent.dag.tasks[producer].component_ref.name)
    if source is not None and key not in getattr(source.output_definitions, kind):
        known = ', '.join(sorted(getattr(source.output_definitions, kind))) or 'none'
        what = f'It reads {key!r} of {producer}, which has no such output.'
        yield Problem('error', path, what, f'Read one of its {kind}: {known}.')


def _check_missing(where: str, task: Any, component: Any) -> Iterator[Problem]:
    """handleParamTypeValidationAndConversion, which passes no default: only the launcher fills in optional ones."""
    iterated = {task.parameter_iterator.item_input}
    for name, definition in sorted(component.input_definitions.parameters.items()):
        if name in task.inputs.parameters or name in iterated or definition.is_optional:
            continue
        path = f'{where}.inputs.parameters.{name}'
        if definition.HasField('default_value'):
            what = "The task leaves it out, and the driver uses a component's default only where it is optional."
            yield Problem('error', path, what, 'Give the value, or set isOptional with the component.')
        else:
            what = 'The component needs it, and the task does not give it; the driver fails.'
            yield Problem('error', path, what, 'Give the value, or a default and isOptional with the component.')
