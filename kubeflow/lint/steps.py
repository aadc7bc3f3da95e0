"""The executors of a package: kind, image, command, resources, and importers.

Called by kubeflow/lint/linter.py. Sources are files and functions of kubeflow/pipelines below backend/src/v2.
"""

import re
from collections.abc import Iterator
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from kubeflow.lint.fields import Problem, to_camel
from kubeflow.lint.graph import ParsedPackage, check_artifact_type

# The form of k8s.io/apimachinery/pkg/api/resource/quantity.go ParseQuantity.
_QUANTITY = re.compile(r'(\d+\.?\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?\d{1,18})?')
_ARTIFACT_SCHEMES = ('minio://', 's3://', 'gs://', 'oci://')  # importer_launcher.go ImportSpecToMLMDArtifact


def check_steps(package: ParsedPackage) -> Iterator[Problem]:
    """Checks every executor, and that each is used and some step asks for resources."""
    used = {component.executor_label for component in package.spec.components.values()}
    for label, executor in sorted(package.executors.items()):
        where = f'deploymentSpec.executors.{label}'
        if label not in used:
            what = 'No component uses it, so its image and resources are on no step.'
            yield Problem('warning', where, what, 'Take it away, or mend an executorLabel.')
        yield from _check_executor(where, label, executor, package)
    containers = [item.container for item in package.executors.values() if item.HasField('container')]
    if containers and not any(container.HasField('resources') for container in containers):
        what = 'No step asks for CPU or memory; the cluster may put all on one node and kill the largest.'
        yield Problem('warning', 'deploymentSpec.executors', what, 'Set resourceCpuRequest and resourceMemoryRequest.')


def _check_executor(where: str, label: str, executor: Any, package: ParsedPackage) -> Iterator[Problem]:
    """compiler/visitor.go pipelineDFS.dfs; argocompiler/dag.go task."""
    kind = executor.WhichOneof('spec')
    if kind == 'container':
        yield from _check_container(where, label, executor.container, package)
    elif kind == 'importer':
        users = [item for item in package.spec.components.values() if item.executor_label == label]
        yield from _check_importer(where, executor.importer, users)
    elif kind == 'resolver':
        what = "The server has no resolvers: 'resolver executors not implemented'."
        yield Problem('error', where, what, 'Read what it would find from a folder or an importer.')
    else:
        what = f'The server runs containers and importers alone. Received: {kind or "nothing"}.'
        yield Problem('error', where, what, 'Give the step a container.')


def _check_container(where: str, label: str, container: Any, package: ParsedPackage) -> Iterator[Problem]:
    yield from _check_image(f'{where}.container.image', container.image)
    if not container.command and not container.args:  # component/launcher_v2.go NewLauncherV2
        what = "The launcher runs the command itself, not the image's: 'command and arguments are empty'."
        yield Problem('error', f'{where}.container.command', what, 'Name the command.')
    if container.lifecycle.HasField('pre_cache_check'):  # named nowhere in the server's source
        what = 'The server ignores it: the step sees no new span and no fingerprint of its data.'
        if _is_cached(label, package):
            what += ' With the cache on, it then goes on with the result from older data.'
        mend = "Switch the step's cache off, and remove it."
        yield Problem('warning', f'{where}.container.lifecycle.preCacheCheck', what, mend)
    yield from _check_resources(f'{where}.container.resources', container.resources)


def _check_image(where: str, image: str) -> Iterator[Problem]:
    """argocompiler/container.go puts a name in its place that never exists, so that an empty one cannot be pulled."""
    name = image.rpartition('/')[2]
    if not image.strip():
        yield Problem('error', where, 'The step has no image.', 'Compile with --image IMAGE:VERSION.')
    elif '{{' not in image and '@sha256:' not in image and (':' not in name or name.endswith(':latest')):
        what = f'{image} is another image on another day, while the cache takes it for the same.'
        yield Problem('error', where, what, 'Name a version or a digest: IMAGE:1.2.3 or IMAGE@sha256:...')


def _is_cached(label: str, package: ParsedPackage) -> bool:
    components = package.spec.components
    tasks = [task for item in (package.spec.root, *components.values()) for task in item.dag.tasks.values()]
    users = {name for name, component in components.items() if component.executor_label == label}
    return any(task.caching_options.enable_cache for task in tasks if task.component_ref.name in users)


def _check_resources(where: str, resources: Any) -> Iterator[Problem]:
    """driver/driver.go initPodSpecPatch and getPodResource; placeholders are resolved at run time."""
    names = ('resource_cpu_limit', 'resource_memory_limit', 'resource_cpu_request', 'resource_memory_request')
    for name in names:
        text = getattr(resources, name)
        if text and '{{' not in text and not _QUANTITY.fullmatch(text):
            what = f'{text!r} is not a quantity of Kubernetes; the driver fails the step.'
            yield Problem('error', f'{where}.{to_camel(name)}', what, "Give a string such as '4', '500m' or '8Gi'.")
    for kind in ('Cpu', 'Memory'):
        request, limit = both = [getattr(resources, f'resource_{kind.lower()}_{name}') for name in ('request', 'limit')]
        if all(_QUANTITY.fullmatch(text) for text in both) and parse_quantity(request) > parse_quantity(limit):
            what = f'{request} is over the limit of {limit}; Kubernetes refuses the pod.'
            yield Problem('error', f'{where}.resource{kind}Request', what, 'Lower it, or raise the limit.')
    if not resources.HasField('accelerator'):
        return
    accelerator, path = resources.accelerator, f'{where}.accelerator'
    kind = accelerator.resource_type or accelerator.type
    count = accelerator.resource_count or (str(accelerator.count) if accelerator.count > 0 else '')
    if not kind or not count:
        what = 'An accelerator needs type and count; the driver drops it silently without either.'
        yield Problem('error', path, what, "Give resourceType 'nvidia.com/gpu' and resourceCount '1'.")
        return
    if '{{' not in kind and '/' not in kind:  # the type is used verbatim as the name of a resource
        what = f'{kind!r} is not a resource of Kubernetes; no node has it.'
        yield Problem('error', path, what, "Give resourceType 'nvidia.com/gpu'; a node selector names the model.")
    if '{{' not in count and not count.isdigit():
        what = f'Kubernetes hands out whole accelerators. Received: {count!r}.'
        yield Problem('error', path, what, "Give resourceCount '1'.")


def _check_importer(where: str, importer: Any, users: list) -> Iterator[Problem]:
    """component/importer_launcher.go ImportSpecToMLMDArtifact, getOutPutArtifactName. `reimport` it understands."""
    where = f'{where}.importer'
    kind = importer.artifact_uri.WhichOneof('value')
    uri = importer.artifact_uri.constant.string_value
    if kind not in ('constant', 'runtime_parameter') or (kind == 'constant' and not uri):
        what = 'It names no artifact in the form that the server reads.'
        yield Problem('error', f'{where}.artifactUri', what, 'Give artifactUri.constant, or a runtimeParameter.')
    elif kind == 'constant' and not uri.startswith(_ARTIFACT_SCHEMES):
        what = f'The importer takes {", ".join(_ARTIFACT_SCHEMES)} alone. Received: {uri}.'
        yield Problem('error', f'{where}.artifactUri', what, 'Put the artifact into the object store.')
    yield from check_artifact_type(f'{where}.typeSchema', importer.type_schema)
    if importer.properties or importer.custom_properties:
        what = 'The server ignores properties and customProperties.'
        yield Problem('warning', where, what, 'Put them into metadata.')
    if any(len(component.output_definitions.artifacts) != 1 for component in users):
        yield Problem('error', where, 'An importer must have exactly one output artifact.', 'Split it.')
