"""Rules for the inputs of a task: each must have a source, and a value of the type that the component takes.

Called by kubeflow/lint/graph.py for each task. The source of every rule is backend/src/v2/driver/resolve.go in
kubeflow/pipelines, unless the rule names another.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from kubeflow.lint.problem import Problem

_KINDS = {
    'number_value': {'NUMBER_DOUBLE', 'NUMBER_INTEGER'},
    'bool_value': {'BOOLEAN'},
    'list_value': {'LIST'},
    'struct_value': {'STRUCT', 'TASK_FINAL_STATUS', 'TASK_CONFIG'},
}


def describe_type_clash(value: Any, parameter_type: int) -> str:
    """Compares a constant with the type of its parameter. Any value fits STRING, since the driver converts it.

    Args:
      value: a google.protobuf.Value.
      parameter_type: a number of ParameterType.ParameterTypeEnum.

    Returns:
      What is wrong, such as '"3" is not of type NUMBER_INTEGER'; '' if the value fits.
    """
    known = pb.ParameterType.ParameterTypeEnum.DESCRIPTOR.values_by_number.get(parameter_type)
    name = known.name if known else str(parameter_type)
    if name == 'STRING' or name in _KINDS.get(value.WhichOneof('kind'), set()):
        return ''
    return f'{json_format.MessageToJson(value, indent=None)} is not of type {name}'


def check_inputs(where: str, task: Any, component: Any, parent: Any, components: Any) -> Iterator[Problem]:
    """Checks every input of a task, and that the task gives every input that its component needs.

    Args:
      where: the path of the task in the document.
      task: pb.PipelineTaskSpec.
      component: pb.ComponentSpec of the task.
      parent: pb.ComponentSpec whose DAG the task is in.
      components: pb.ComponentSpec of the whole package, by name.
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
            what = f'It reads {value.component_input_artifact!r}, which is not an artifact input of its DAG.'
            yield Problem('error', path, what, 'Read the output of a task.')
    yield from _check_missing(where, task, component)


def _check_parameter(path: str, value: Any, definition: Any, task: Any, parent: Any) -> Iterator[Problem]:
    """Checks the source of a parameter, and the type of a constant. Source: resolveInputParameter."""
    kind = value.WhichOneof('kind')
    if kind == 'component_input_parameter':
        if value.component_input_parameter not in parent.input_definitions.parameters:
            what = f'It reads {value.component_input_parameter!r}, which is not a parameter of its DAG.'
            yield Problem('error', path, what, 'Correct the name, or define the parameter with the DAG.')
    elif kind == 'runtime_value':
        if value.runtime_value.WhichOneof('value') != 'constant':
            what = 'The driver takes only runtimeValue.constant; constantValue and runtimeParameter are of schema 2.0.'
            yield Problem('error', path, what, 'Compile with use_pipeline_spec_2_1=True.')
        elif definition is not None and (
            clash := describe_type_clash(value.runtime_value.constant, definition.parameter_type)
        ):
            yield Problem('error', path, f'{clash}; the driver fails the step.', 'Correct the value or the type.')
    elif kind == 'task_final_status':
        if not task.dependent_tasks:
            what = 'It reads the final status of a task, but dependentTasks is empty.'
            yield Problem('error', path, what, 'Name that task in dependentTasks.')
    elif kind is None:
        yield Problem(
            'error', path, 'It has no source for its value; the driver fails.', 'Give a constant or a source.'
        )


def _check_producer(path: str, producer: str, kind: str, key: str, parent: Any, components: Any) -> Iterator[Problem]:
    """Checks that an output of a task exists.

    Source: argocompiler/dag.go addImplicitDependencies, which adds the missing dependency and checks only the task's
    name.
    """
    if producer not in parent.dag.tasks:
        what = f'It reads an output of {producer!r}, which is not a task here.'
        yield Problem('error', path, what, 'Correct the name.')
        return
    source = components.get(parent.dag.tasks[producer].component_ref.name)
    if source is not None and key not in getattr(source.output_definitions, kind):
        known = ', '.join(sorted(getattr(source.output_definitions, kind))) or 'none'
        what = f'It reads {key!r} of {producer}, which does not have that output.'
        yield Problem('error', path, what, f'Read one of its {kind}: {known}.')


def _check_missing(where: str, task: Any, component: Any) -> Iterator[Problem]:
    """Checks that a task gives every parameter that its component needs.

    Source: handleParamTypeValidationAndConversion, which does not use defaults: only the launcher fills them in, and
    only for optional parameters.
    """
    iterated = {task.parameter_iterator.item_input}
    for name, definition in sorted(component.input_definitions.parameters.items()):
        if name in task.inputs.parameters or name in iterated or definition.is_optional:
            continue
        path = f'{where}.inputs.parameters.{name}'
        if definition.HasField('default_value'):
            what = 'The task does not give it, and the default of a component counts only for an optional parameter.'
            yield Problem('error', path, what, 'Give the value, or set isOptional with the component.')
        else:
            what = 'The component needs it, and the task does not give it; the driver fails.'
            yield Problem('error', path, what, 'Give the value, or a default and isOptional with the component.')
