"""The graph of a package as the server compiles it: components, tasks, names, dependencies, inputs, retries.

Called by kubeflow/lint/linter.py. Sources are files and functions of kubeflow/pipelines below backend/src/v2, or of
Argo.
"""

import graphlib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from kubeflow.lint.fields import Problem
from kubeflow.lint.inputs import check_inputs


class ParsedPackage(NamedTuple):
    """A compiled package as protobufs, by the server's schema; kubeflow/package.py has it as JSON."""

    spec: Any  # pb.PipelineSpec
    executors: dict[str, Any]  # by label: pb.PipelineDeploymentConfig.ExecutorSpec
    platform: dict[str, dict]  # by label: what the kubernetes document says of the executor, JSON as it stands there


_TASK_NAME = re.compile(r'[a-zA-Z][-a-zA-Z0-9]*')
_COMPONENT_NAME = re.compile(r'[-a-zA-Z0-9_]+')
_MAX_TASK_NAME = 128 - len('-driver')  # characters: the compiler adds a task NAME-driver before each


def check_graph(package: ParsedPackage) -> Iterator[Problem]:
    """Checks every component, and every task of those that are DAGs."""
    yield from _check_component('root', package.spec.root, package)
    for name, component in sorted(package.spec.components.items()):
        where = f'components.{name}'
        if not _COMPONENT_NAME.fullmatch(name):
            # Argo's isValidParamOrArtifactName: the name becomes part of a workflow parameter's (argo.go)
            what = 'Argo takes names of letters, digits, - and _ alone for what the server makes of a component.'
            yield Problem('error', where, what, 'Rename the component.')
        yield from _check_component(where, component, package)
    yield from _check_shared_containers(package)


def _check_component(where: str, component: Any, package: ParsedPackage) -> Iterator[Problem]:
    """compiler/visitor.go pipelineDFS.dfs."""
    implementation = component.WhichOneof('implementation')
    if implementation == 'dag':
        yield from _check_dag(where, component, package)
    elif implementation is None:
        yield Problem('error', where, 'It has neither tasks nor an executor.', 'Give it an executorLabel or a dag.')
    elif component.executor_label not in package.executors:
        what = f'Its executor {component.executor_label!r} is not in deploymentSpec.executors.'
        yield Problem('error', f'{where}.executorLabel', what, 'Add the executor, or mend the label.')
    else:
        for key, artifact in component.output_definitions.artifacts.items():
            yield from check_artifact_type(f'{where}.outputDefinitions.artifacts.{key}', artifact.artifact_type)


def check_artifact_type(where: str, schema: Any) -> Iterator[Problem]:
    """launcher_v2.go getArtifactSchema; metadata/client.go SchemaToArtifactType. Any title will do: tfx.Model."""
    kind = schema.WhichOneof('kind')
    title = schema.schema_title
    if kind == 'instance_schema':
        try:
            title = yaml.safe_load(schema.instance_schema).get('title')
        except (yaml.YAMLError, AttributeError):
            title = None
    if not title:
        what = {
            None: 'It has no artifact type; the launcher fails when the step ends.',
            'schema_uri': 'The launcher does not take schemaUri; the step fails when it ends.',
        }.get(kind, 'Its schema has no title; the launcher ends the step on the spot.')
        yield Problem(
            'error', where, what, "Give it a type: schemaTitle 'tfx.Model', or an instanceSchema with a title."
        )


def _check_shared_containers(package: ParsedPackage) -> Iterator[Problem]:
    """argocompiler/argo.go hashComponentContainer: the server stores one component for equal containers."""
    first: dict[bytes, str] = {}
    for name, component in sorted(package.spec.components.items()):
        executor = package.executors.get(component.executor_label)
        if executor is None or executor.WhichOneof('spec') != 'container':
            continue
        other = first.setdefault(executor.container.SerializeToString(deterministic=True), name)
        if _describe_interface(package.spec.components[other]) != _describe_interface(component):
            what = (
                f'Its container equals that of {other}, so the server uses the inputs and outputs of {other} for both.'
            )
            yield Problem(
                'error', f'components.{name}', what, 'Make the containers differ, by an environment variable.'
            )


def _describe_interface(component: Any) -> str:
    both = json_format.MessageToDict(component)
    return json.dumps([both.get('inputDefinitions'), both.get('outputDefinitions')], sort_keys=True)


def _check_dag(where: str, component: Any, package: ParsedPackage) -> Iterator[Problem]:
    tasks = component.dag.tasks
    edges = {}
    for name, task in sorted(tasks.items()):
        yield from _check_task(f'{where}.dag.tasks.{name}', name, task, component, package)
        edges[name] = sorted(set(task.dependent_tasks) | set(_list_producers(task)))
    if not any(task.trigger_policy.strategy != _AT_END for task in tasks.values()):
        what = 'It has no task, or exit tasks alone.'  # argocompiler/dag.go DAG
        yield Problem('error', f'{where}.dag.tasks', what, 'Compile a pipeline with a step.')
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        what = f'The tasks wait for each other in a circle: {" <- ".join(error.args[1])}.'  # Argo's verifyNoCycles
        yield Problem('error', f'{where}.dag.tasks', what, 'Take one of these dependencies away.')


_AT_END = pb.PipelineTaskSpec.TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED


def _list_producers(task: Any) -> Iterator[str]:
    for value in task.inputs.parameters.values():
        if value.WhichOneof('kind') == 'task_output_parameter':
            yield value.task_output_parameter.producer_task
    for value in task.inputs.artifacts.values():
        if value.WhichOneof('kind') == 'task_output_artifact':
            yield value.task_output_artifact.producer_task


def _check_task(where: str, name: str, task: Any, parent: Any, package: ParsedPackage) -> Iterator[Problem]:
    """argocompiler/dag.go task and DAG; driver/driver.go validateNonRoot; Argo's validateDAG."""
    if not _TASK_NAME.fullmatch(name) or len(name) > _MAX_TASK_NAME:
        what = f'Argo takes task names of letters, digits and -, a letter first, at most {_MAX_TASK_NAME} characters.'
        yield Problem('error', where, what, 'Rename the task.')
    if name.endswith('-driver') and name.removesuffix('-driver') in parent.dag.tasks:
        what = f'The server adds a task {name} of its own, and Argo refuses two of one name.'
        yield Problem('error', where, what, 'Rename the task.')
    if not task.task_info.name:
        yield Problem('error', f'{where}.taskInfo.name', "It is empty; the step's driver fails.", 'Give it the name.')
    for other in task.dependent_tasks:
        if other not in parent.dag.tasks:
            what = f'It waits for {other!r}, which is not a task here.'
            yield Problem('error', f'{where}.dependentTasks', what, 'Mend the name, or take it away.')
    if task.trigger_policy.strategy == _AT_END and not task.dependent_tasks:
        what = 'An exit task that depends on no task never runs.'
        yield Problem('error', f'{where}.dependentTasks', what, 'Name the task at whose end it shall run.')
    if task.HasField('artifact_iterator'):
        what = 'The server has no artifact iterators.'
        yield Problem('error', f'{where}.artifactIterator', what, 'Iterate over a parameter.')
    if task.HasField('retry_policy'):
        yield from _check_retries(f'{where}.retryPolicy', task.retry_policy)
    reference = task.component_ref.name
    if reference not in package.spec.components:
        what = f'Its component {reference!r} is not in components.' if reference else 'It names no component.'
        yield Problem('error', f'{where}.componentRef', what, 'Add the component, or mend the name.')
        return
    component = package.spec.components[reference]
    executor = package.executors.get(component.executor_label)
    if executor is not None and executor.HasField('importer') and task.trigger_policy.condition:
        what = 'An importer cannot have a condition: driver and importer are one container.'
        yield Problem('error', f'{where}.triggerPolicy', what, 'Put the condition on the steps that read the artifact.')
    yield from check_inputs(where, task, component, parent, package.spec.components)


def _check_retries(where: str, policy: Any) -> Iterator[Problem]:
    """argocompiler/container.go addParameterDefault; Argo's processNodeRetries (controller/operator.go)."""
    if policy.max_retry_count < 1:
        what = f'No attempt follows a failure. Received: maxRetryCount {policy.max_retry_count}.'
        yield Problem('warning', where, what, 'Ask for 1 or more, or take the policy away.')
    elif policy.backoff_max_duration.seconds <= policy.backoff_duration.seconds:
        what = 'Argo never retries: the first wait outlasts backoffMaxDuration, which is 0 s where it is missing.'
        yield Problem('error', where, what, 'Give the whole time for all attempts, longer than one takes: 86400s.')
    if policy.backoff_factor != int(policy.backoff_factor):
        what = f'Argo takes whole backoff factors alone, and fails the step. Received: {policy.backoff_factor}.'
        yield Problem('error', where, what, 'Give a whole number: 2.')
    if policy.backoff_duration.nanos or policy.backoff_max_duration.nanos:
        yield Problem('warning', where, 'The server drops fractions of seconds.', 'Give whole seconds: 30s.')
