"""Rules for the graph of a package: components, tasks, names, dependencies, inputs and retries.

Called by kubeflow/lint/linter.py. A rule follows the server as it compiles and runs the graph, and names its source: a
file and function of kubeflow/pipelines below backend/src/v2, or of Argo.
"""

import graphlib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from kubeflow.lint.conditions import check_condition
from kubeflow.lint.inputs import check_inputs
from kubeflow.lint.problem import Problem


class ParsedPackage(NamedTuple):
    """A compiled package as protobuf messages of the server's schema, which the rules read.

    `kubeflow.package.Package` has a package as JSON. Both are needed: a rule must know which field of a oneof is set
    and what a missing field means, as the server's parser does, while the rehearsal hands parts of the document to
    containers as the JSON that they are, and `submit` must not fail on a field that this schema lacks.

    spec: pb.PipelineSpec.
    executors: pb.PipelineDeploymentConfig.ExecutorSpec by executor label.
    platform: KubernetesExecutorConfig by executor label.
    """

    spec: Any
    executors: dict[str, Any]
    platform: dict[str, Any]


_TASK_NAME = re.compile(r'[a-zA-Z][-a-zA-Z0-9]*')
_COMPONENT_NAME = re.compile(r'[-a-zA-Z0-9_]+')
_MAX_TASK_NAME = 128 - len('-driver')  # characters: the compiler adds a task NAME-driver for each task


def check_graph(package: ParsedPackage) -> Iterator[Problem]:
    """Checks every component, and every task of those that are DAGs."""
    yield from _check_component('root', package.spec.root, package)
    for name, component in sorted(package.spec.components.items()):
        where = f'components.{name}'
        if not _COMPONENT_NAME.fullmatch(name):
            # Argo's isValidParamOrArtifactName: argo.go makes the name a part of a workflow parameter's name
            what = 'The server makes an Argo parameter of a component, whose name takes only letters, digits, - and _.'
            yield Problem('error', where, what, 'Rename the component.')
        yield from _check_component(where, component, package)
    yield from _check_shared_containers(package)
    yield from _warn_of_retries(package)


def _warn_of_retries(package: ParsedPackage) -> Iterator[Problem]:
    """Warns once of all retry policies, which server 2.17 as it is shipped does not apply to failures.

    Sources: templateDefaults in manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml;
    argocompiler/container.go getTaskRetryStrategyFromInput, which sets no policy of its own.
    """
    dags = [package.spec.root, *package.spec.components.values()]
    count = sum(task.retry_policy.max_retry_count > 0 for item in dags for task in item.dag.tasks.values())
    if count:
        what = (
            f'Server 2.17 as it is shipped starts none of the {count} steps with a retryPolicy again when they fail: '
            'the retryPolicy of its Argo controller is OnError, which is for lost pods only.'
        )
        mend = 'Nothing in a package changes that; docs/kubeflow.md, Retries, says what to change in the cluster.'
        yield Problem('warning', 'file', what, mend)


def _check_component(where: str, component: Any, package: ParsedPackage) -> Iterator[Problem]:
    """Checks that a component has tasks or an executor. Source: compiler/visitor.go pipelineDFS.dfs."""
    implementation = component.WhichOneof('implementation')
    if implementation == 'dag':
        yield from _check_dag(where, component, package)
    elif implementation is None:
        yield Problem('error', where, 'It has neither tasks nor an executor.', 'Give it an executorLabel or a dag.')
    elif component.executor_label not in package.executors:
        what = f'Its executor {component.executor_label!r} is not in deploymentSpec.executors.'
        yield Problem('error', f'{where}.executorLabel', what, 'Add the executor, or correct the label.')
    else:
        for key, artifact in component.output_definitions.artifacts.items():
            yield from check_artifact_type(f'{where}.outputDefinitions.artifacts.{key}', artifact.artifact_type)


def check_artifact_type(where: str, schema: Any) -> Iterator[Problem]:
    """Checks that an artifact type has a title; any title will do, such as tfx.Model.

    Sources: launcher_v2.go getArtifactSchema; metadata/client.go SchemaToArtifactType.

    Args:
      where: the path of the type in the document.
      schema: pb.ArtifactTypeSchema.
    """
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
        }.get(kind, 'Its schema has no title; the launcher stops the step at once.')
        yield Problem(
            'error', where, what, "Give it a type: schemaTitle 'tfx.Model', or an instanceSchema with a title."
        )


def _check_shared_containers(package: ParsedPackage) -> Iterator[Problem]:
    """Checks that components with equal containers have equal inputs and outputs.

    Source: argocompiler/argo.go hashComponentContainer, by which the server keeps one component for equal containers.
    """
    first: dict[bytes, str] = {}
    for name, component in sorted(package.spec.components.items()):
        executor = package.executors.get(component.executor_label)
        if executor is None or executor.WhichOneof('spec') != 'container':
            continue
        other = first.setdefault(executor.container.SerializeToString(deterministic=True), name)
        if _describe_interface(package.spec.components[other]) != _describe_interface(component):
            what = (
                f'Its container equals the container of {other}, so the server uses the inputs and outputs of {other} '
                'for both.'
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
        what = 'It has no task, or only exit tasks.'  # argocompiler/dag.go DAG
        yield Problem('error', f'{where}.dag.tasks', what, 'Compile a pipeline with a step.')
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        what = f'The tasks wait for each other in a circle: {" <- ".join(error.args[1])}.'  # Argo's verifyNoCycles
        yield Problem('error', f'{where}.dag.tasks', what, 'Remove one of these dependencies.')


_AT_END = pb.PipelineTaskSpec.TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED


def _list_producers(task: Any) -> Iterator[str]:
    """Yields the names of the tasks whose outputs a task reads."""
    for value in task.inputs.parameters.values():
        if value.WhichOneof('kind') == 'task_output_parameter':
            yield value.task_output_parameter.producer_task
    for value in task.inputs.artifacts.values():
        if value.WhichOneof('kind') == 'task_output_artifact':
            yield value.task_output_artifact.producer_task


def _check_task(where: str, name: str, task: Any, parent: Any, package: ParsedPackage) -> Iterator[Problem]:
    """Checks a task's name, dependencies, condition, iterators, retries, component and inputs.

    Sources: argocompiler/dag.go task and DAG; driver/driver.go validateNonRoot; Argo's validateDAG.
    """
    yield from _check_name(where, name, task, parent)
    for other in task.dependent_tasks:
        if other not in parent.dag.tasks:
            what = f'It waits for {other!r}, which is not a task here.'
            yield Problem('error', f'{where}.dependentTasks', what, 'Correct the name, or remove it.')
    if task.trigger_policy.strategy == _AT_END and not task.dependent_tasks:
        what = 'An exit task that depends on no task never runs.'
        yield Problem('error', f'{where}.dependentTasks', what, 'Name the task after which it should run.')
    yield from check_condition(where, task.trigger_policy.condition)
    if task.HasField('artifact_iterator'):
        what = 'The server has no artifact iterators.'
        yield Problem('error', f'{where}.artifactIterator', what, 'Iterate over a parameter.')
    if task.HasField('retry_policy'):
        yield from _check_retries(f'{where}.retryPolicy', task.retry_policy)
    reference = task.component_ref.name
    if reference not in package.spec.components:
        what = f'Its component {reference!r} is not in components.' if reference else 'It names no component.'
        yield Problem('error', f'{where}.componentRef', what, 'Add the component, or correct the name.')
        return
    component = package.spec.components[reference]
    executor = package.executors.get(component.executor_label)
    if executor is not None and executor.HasField('importer') and task.trigger_policy.condition:
        what = 'An importer cannot have a condition: its driver and the importer are one container.'
        yield Problem('error', f'{where}.triggerPolicy', what, 'Put the condition on the steps that read the artifact.')
    yield from check_inputs(where, task, component, parent, package.spec.components)


def _check_name(where: str, name: str, task: Any, parent: Any) -> Iterator[Problem]:
    """Checks that Argo takes the name of a task, and that its driver finds the name."""
    if not _TASK_NAME.fullmatch(name) or len(name) > _MAX_TASK_NAME:
        what = (
            'Argo takes task names of letters, digits and - that begin with a letter, of at most '
            f'{_MAX_TASK_NAME} characters.'
        )
        yield Problem('error', where, what, 'Rename the task.')
    if name.endswith('-driver') and name.removesuffix('-driver') in parent.dag.tasks:
        what = f'The server adds a task {name} of its own, and Argo refuses two tasks of the same name.'
        yield Problem('error', where, what, 'Rename the task.')
    if not task.task_info.name:
        yield Problem(
            'error', f'{where}.taskInfo.name', "It is empty; the step's driver fails.", "Give the task's name."
        )


def _check_retries(where: str, policy: Any) -> Iterator[Problem]:
    """Checks that a retry policy leads to retries.

    backoffDuration is the wait before the first retry. backoffMaxDuration counts from the first start of the step, and
    after it no retry is started. Sources: argocompiler/container.go addParameterDefault; Argo's processNodeRetries
    (controller/operator.go).
    """
    if policy.max_retry_count < 1:
        what = f'The step is not retried after a failure. Received: maxRetryCount {policy.max_retry_count}.'
        yield Problem('warning', where, what, 'Give 1 or more, or remove the policy.')
    elif policy.backoff_max_duration.seconds <= policy.backoff_duration.seconds:
        what = (
            'Argo never retries: it starts no retry later than backoffMaxDuration after the first start of the step, '
            'and the wait before the first retry, backoffDuration, is at least as long. A missing backoffMaxDuration '
            'counts as 0 s.'
        )
        mend = 'Give a backoffMaxDuration in which all attempts fit: 86400s.'
        yield Problem('error', where, what, mend)
    if policy.backoff_factor != int(policy.backoff_factor):
        what = f'Argo takes only whole backoff factors, and fails the step. Received: {policy.backoff_factor}.'
        yield Problem('error', where, what, 'Give a whole number: 2.')
    if policy.backoff_duration.nanos or policy.backoff_max_duration.nanos:
        yield Problem('warning', where, 'The server drops fractions of seconds.', 'Give whole seconds: 30s.')
