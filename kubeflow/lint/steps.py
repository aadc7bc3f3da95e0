"""Rules for the executors of a package: kind, image, command and resources of containers, and importers.

Called by kubeflow/lint/linter.py. Sources are files and functions of kubeflow/pipelines below backend/src/v2.
"""

import re
from collections.abc import Iterator
from typing import Any

from kubernetes.utils.quantity import parse_quantity  # type: ignore[import-untyped]  # kubernetes has no stubs

from kubeflow.lint.fields import to_camel
from kubeflow.lint.graph import ParsedPackage, check_artifact_type
from kubeflow.lint.problem import Problem

# The form of k8s.io/apimachinery/pkg/api/resource/quantity.go ParseQuantity.
_QUANTITY = re.compile(r'(\d+\.?\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?\d{1,18})?')
_ARTIFACT_SCHEMES = ('minio://', 's3://', 'gs://', 'oci://')  # importer_launcher.go ImportSpecToMLMDArtifact


def check_steps(package: ParsedPackage) -> Iterator[Problem]:
    """Checks every executor, that a component uses it, and that at least one step asks for resources."""
    used = {component.executor_label for component in package.spec.components.values()}
    for label, executor in sorted(package.executors.items()):
        where = f'deploymentSpec.executors.{label}'
        if label not in used:
            what = 'No component uses it, so its image and resources apply to no step.'
            yield Problem('warning', where, what, 'Remove it, or correct an executorLabel.')
        yield from _check_executor(where, label, executor, package)
    containers = [item.container for item in package.executors.values() if item.HasField('container')]
    if containers and not any(container.HasField('resources') for container in containers):
        what = 'No step asks for CPU or memory; the cluster may run all steps on one node and kill the largest.'
        yield Problem('warning', 'deploymentSpec.executors', what, 'Set resourceCpuRequest and resourceMemoryRequest.')


def _check_executor(where: str, label: str, executor: Any, package: ParsedPackage) -> Iterator[Problem]:
    """Checks one executor. Sources: compiler/visitor.go pipelineDFS.dfs; argocompiler/dag.go task."""
    kind = executor.WhichOneof('spec')
    if kind == 'container':
        yield from _check_container(where, label, executor.container, package)
    elif kind == 'importer':
        users = [item for item in package.spec.components.values() if item.executor_label == label]
        yield from _check_importer(where, executor.importer, users)
    elif kind == 'resolver':
        what = "The server has no resolvers: 'resolver executors not implemented'."
        yield Problem('error', where, what, 'Read the artifact that it would find from a folder, or use an importer.')
    else:
        what = f'The server runs only containers and importers. Received: {kind or "nothing"}.'
        yield Problem('error', where, what, 'Give the step a container.')


def _check_container(where: str, label: str, container: Any, package: ParsedPackage) -> Iterator[Problem]:
    yield from _check_image(f'{where}.container.image', container.image)
    if not container.command and not container.args:  # component/launcher_v2.go NewLauncherV2
        what = "The launcher runs the command of the package, not the image's own: 'command and arguments are empty'."
        yield Problem('error', f'{where}.container.command', what, 'Give the command.')
    if container.lifecycle.HasField('pre_cache_check'):  # the server's source does not read it anywhere
        what = 'The server ignores it, so it sees neither new spans nor a fingerprint of the data.'
        if _is_cached(label, package):
            what += ' As the step is cached, the run goes on with the result from older data.'
        mend = "Switch the step's cache off, and remove preCacheCheck."
        yield Problem('warning', f'{where}.container.lifecycle.preCacheCheck', what, mend)
    yield from _check_resources(f'{where}.container.resources', container.resources)


def _check_image(where: str, image: str) -> Iterator[Problem]:
    """Checks that an image is named, with a version or a digest.

    Source: argocompiler/container.go, which puts the name of an image that does not exist in place of an empty one.
    """
    name = image.rpartition('/')[2]
    if not image.strip():
        yield Problem('error', where, 'The step has no image.', 'Compile with --image IMAGE:VERSION.')
    elif '{{' not in image and '@sha256:' not in image and (':' not in name or name.endswith(':latest')):
        what = f'{image} can be a different image on a different day, while the cache takes it for the same.'
        yield Problem('error', where, what, 'Give a version or a digest: IMAGE:1.2.3 or IMAGE@sha256:...')


def _is_cached(label: str, package: ParsedPackage) -> bool:
    """Says whether a task with the executor of that label is cached."""
    components = package.spec.components
    tasks = [task for item in (package.spec.root, *components.values()) for task in item.dag.tasks.values()]
    users = {name for name, component in components.items() if component.executor_label == label}
    return any(task.caching_options.enable_cache for task in tasks if task.component_ref.name in users)


def _check_resources(where: str, resources: Any) -> Iterator[Problem]:
    """Checks CPU, memory and accelerators; placeholders are left alone, since the driver resolves them at run time.

    Source: driver/driver.go initPodSpecPatch and getPodResource.
    """
    names = ('resource_cpu_limit', 'resource_memory_limit', 'resource_cpu_request', 'resource_memory_request')
    for name in names:
        text = getattr(resources, name)
        if text and '{{' not in text and not _QUANTITY.fullmatch(text):
            what = f'{text!r} is not a quantity in Kubernetes; the driver fails the step.'
            yield Problem('error', f'{where}.{to_camel(name)}', what, "Give a string such as '4', '500m' or '8Gi'.")
    for kind in ('Cpu', 'Memory'):
        request, limit = both = [getattr(resources, f'resource_{kind.lower()}_{name}') for name in ('request', 'limit')]
        if all(_QUANTITY.fullmatch(text) for text in both) and parse_quantity(request) > parse_quantity(limit):
            what = f'{request} is over the limit of {limit}; Kubernetes refuses the pod.'
            yield Problem('error', f'{where}.resource{kind}Request', what, 'Lower it, or raise the limit.')
    if resources.HasField('accelerator'):
        yield from _check_accelerator(f'{where}.accelerator', resources.accelerator)


def _check_accelerator(where: str, accelerator: Any) -> Iterator[Problem]:
    kind = accelerator.resource_type or accelerator.type
    count = accelerator.resource_count or (str(accelerator.count) if accelerator.count > 0 else '')
    if not kind or not count:
        what = 'An accelerator needs type and count; the driver drops it silently if one of them is missing.'
        yield Problem('error', where, what, "Give resourceType 'nvidia.com/gpu' and resourceCount '1'.")
        return
    if '{{' not in kind and '/' not in kind:  # the type is used verbatim as the name of a resource
        what = f'{kind!r} is not the name of a resource in Kubernetes; no node has it.'
        mend = "Give resourceType 'nvidia.com/gpu'; choose the model of the GPU by a node selector."
        yield Problem('error', where, what, mend)
    if '{{' not in count and not count.isdigit():
        what = f'Kubernetes gives a step only whole accelerators. Received: {count!r}.'
        yield Problem('error', where, what, "Give resourceCount '1'.")


def _check_importer(where: str, importer: Any, users: list[Any]) -> Iterator[Problem]:
    """Checks an importer. The server knows `reimport`, so there is no rule for it.

    Source: component/importer_launcher.go ImportSpecToMLMDArtifact and getOutPutArtifactName.

    Args:
      where: the path of the executor in the document.
      importer: pb.PipelineDeploymentConfig.ImporterSpec.
      users: pb.ComponentSpec of each component with that executor.
    """
    where = f'{where}.importer'
    kind = importer.artifact_uri.WhichOneof('value')
    uri = importer.artifact_uri.constant.string_value
    if kind not in ('constant', 'runtime_parameter') or (kind == 'constant' and not uri):
        what = 'It does not name an artifact in a form that the server reads.'
        yield Problem('error', f'{where}.artifactUri', what, 'Give artifactUri.constant, or a runtimeParameter.')
    elif kind == 'constant' and not uri.startswith(_ARTIFACT_SCHEMES):
        what = f'The importer takes only {", ".join(_ARTIFACT_SCHEMES)}. Received: {uri}.'
        yield Problem('error', f'{where}.artifactUri', what, 'Put the artifact into the object store.')
    yield from check_artifact_type(f'{where}.typeSchema', importer.type_schema)
    if importer.properties or importer.custom_properties:
        what = 'The server ignores properties and customProperties.'
        yield Problem('warning', where, what, 'Use metadata instead.')
    if any(len(component.output_definitions.artifacts) != 1 for component in users):
        what = 'An importer must have exactly one output artifact.'
        yield Problem('error', where, what, 'Make an importer for each artifact.')
