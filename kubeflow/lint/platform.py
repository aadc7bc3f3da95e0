"""Rules for the kubernetes platform spec: settings that the server or Kubernetes would not take.

Called by kubeflow/lint/linter.py. Sources are functions of backend/src/v2/driver/k8s.go in kubeflow/pipelines, unless a
rule names another. Unknown fields and wrong types are found by kubeflow/lint/fields.py.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from kubeflow.lint.fields import VERSION_OF_FIELD, pick, to_camel
from kubeflow.lint.graph import ParsedPackage
from kubeflow.lint.problem import Problem

_VOLUMES = ('secret_as_volume', 'config_map_as_volume', 'pvc_mount', 'generic_ephemeral_volume', 'empty_dir_mounts')
_SOURCES = {
    'secret_as_volume': ('secret_name', 'secret_name_parameter'),
    'secret_as_env': ('secret_name', 'secret_name_parameter'),
    'config_map_as_volume': ('config_map_name', 'config_map_name_parameter'),
    'config_map_as_env': ('config_map_name', 'config_map_name_parameter'),
    'image_pull_secret': ('secret_name', 'secret_name_parameter'),
    'pvc_mount': ('pvc_name_parameter', 'constant', 'component_input_parameter', 'task_output_parameter'),
}
"""By field of the entry: the fields of its messages, one of which must say what is mounted or read."""
_TAKEN = ('/gcs', '/s3', '/minio', '/.local', '/.cache', '/.config', '/kfp-launcher')
"""Where argocompiler/container.go addContainerExecutorTemplate mounts volumes of the server's own in every step."""
_EFFECTS = ('', 'NoSchedule', 'PreferNoSchedule', 'NoExecute')  # of tolerations in Kubernetes
_POLICIES = ('Always', 'Never', 'IfNotPresent')


def list_mounts(entry: Any) -> list[str]:
    """Returns the folders that a platform entry mounts into its step, without a slash at the end.

    Args:
      entry: a KubernetesExecutorConfig.

    Returns:
      Such as ['/data', '/serving'].
    """
    return [volume.mount_path.rstrip('/') for name in _VOLUMES for volume in getattr(entry, name)]


def check_pipeline_config(config: dict[str, Any]) -> Iterator[Problem]:
    """Warns of each field of pipelineConfig that only one server knows: the others parse the document strictly.

    Source: apiserver/template/v2_template.go.

    Args:
      config: platforms.kubernetes.pipelineConfig as JSON.
    """
    for field, version in VERSION_OF_FIELD[pb.PipelineConfig.DESCRIPTOR.full_name].items():
        if pick(config, field) is not None:
            where = f'platforms.kubernetes.pipelineConfig.{to_camel(field)}'
            what = f'Only server {version} knows this field; others drop the whole platform document silently.'
            yield Problem('warning', where, what, f'Remove it, unless the server is {version}.')


def check_platform(package: ParsedPackage) -> Iterator[Problem]:
    """Checks every entry of platforms.kubernetes.deploymentSpec.executors."""
    for label, entry in sorted(package.platform.items()):
        where = f'platforms.kubernetes.deploymentSpec.executors.{label}'
        executor = package.executors.get(label)
        if executor is None:
            what = 'No executor has this label, so the server drops the entry silently.'
            yield Problem('error', where, what, f'Use one of: {", ".join(sorted(package.executors)) or "none"}.')
        elif not executor.HasField('container'):  # argocompiler/importer.go importerTask reads no kubernetes config
            yield Problem('warning', where, 'The server ignores it: the step has no container.', 'Remove it.')
        else:
            yield from _check_sources(where, entry)
            yield from _check_mounts(where, list_mounts(entry))
            yield from _check_scheduling(where, entry)


def _check_sources(where: str, entry: Any) -> Iterator[Problem]:
    """Checks that every volume and every variable says what it comes from.

    Sources: extendPodSpecPatch and makeVolumeMountPatch.
    """
    for name, sources in _SOURCES.items():
        for number, message in enumerate(getattr(entry, name)):
            path = f'{where}.{to_camel(name)}[{number}]'
            given = json_format.MessageToDict(message)
            if not any(pick(given, source) for source in sources):
                what = 'It does not say which volume, secret or config map it takes; the driver fails the step.'
                yield Problem('error', path, what, f'Give {to_camel(sources[0])}.')
            if name.endswith('_as_env') and not message.key_to_env:
                yield Problem('error', path, 'It sets no variable.', 'Give keyToEnv.')


def _check_mounts(where: str, paths: list[str]) -> Iterator[Problem]:
    for path, times in sorted(Counter(paths).items()):
        if not path.startswith('/'):
            what = f'A mount path must be absolute, and not / itself. Received: {path or "/"!r}.'
            yield Problem('error', where, what, 'Give such a path: /data.')
        elif times > 1:
            what = f'{path} is mounted {times} times; Kubernetes refuses the pod.'
            yield Problem('error', where, what, 'Mount one volume at each path.')
        elif path in _TAKEN:
            what = f'The server mounts a folder of its own at {path}.'
            yield Problem('error', where, what, 'Mount the volume at a different path: /data.')


def _check_scheduling(where: str, entry: Any) -> Iterator[Problem]:
    policy, deadline_s = entry.image_pull_policy, entry.active_deadline_seconds
    if policy and policy not in _POLICIES:
        what = f'The driver fails on imagePullPolicy {policy!r}.'
        yield Problem('error', where, what, f'Give one of {", ".join(_POLICIES)}.')
    if deadline_s < 0:
        what = f'The driver ignores activeDeadlineSeconds {deadline_s}.'
        yield Problem('error', where, what, 'Give a positive number of seconds, or leave it out.')
    for number, toleration in enumerate(entry.tolerations):
        operator, effect = toleration.operator, toleration.effect
        is_wrong = operator not in ('', 'Exists', 'Equal') or effect not in _EFFECTS
        if is_wrong or (operator == 'Exists' and toleration.value):
            value = f', value {toleration.value!r}' if toleration.value else ''
            what = f'Kubernetes refuses this toleration: operator {operator!r}{value}, effect {effect!r}.'
            mend = 'Give the operator Exists without a value, or Equal; and an effect that exists, such as NoSchedule.'
            yield Problem('error', f'{where}.tolerations[{number}]', what, mend)
