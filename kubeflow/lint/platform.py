"""The kubernetes platform document: whether its entries belong to a step, and whether their mounts and names can be.

Called by kubeflow/lint/linter.py. Sources are functions of backend/src/v2/driver/k8s.go in kubeflow/pipelines, where
no other is named. Unknown fields are kubeflow/lint/fields.py's, by PLATFORM_SPEC.
"""

from collections import Counter
from collections.abc import Iterator

from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from kubeflow.lint.fields import MapOf, Problem, pick, to_camel
from kubeflow.lint.graph import ParsedPackage

# By field of message PipelineConfig of api/v2alpha1/pipeline_spec.proto: the one server that knows it.
_SERVERS = {
    'resource_ttl': '2.16',
    'resource_ttl_on_completion': '2.17',
    'resource_ttl_on_success': '2.17',
    'resource_ttl_on_failure': '2.17',
    'active_deadline_seconds': '2.17',
}
_KUBERNETES = {field.name: None for field in pb.SinglePlatformSpec.DESCRIPTOR.fields} | {
    'deployment_spec': pb.PlatformDeploymentConfig.DESCRIPTOR,
    'pipelineConfig': {'workspace': pb.WorkspaceConfig.DESCRIPTOR, **dict.fromkeys(_SERVERS, int)},
}
PLATFORM_SPEC = {'platforms': MapOf(_KUBERNETES)}
_VOLUMES = ('secret_as_volume', 'config_map_as_volume', 'pvc_mount', 'generic_ephemeral_volume', 'empty_dir_mounts')
_SOURCES = {  # the fields one of which names what is mounted or read
    'secret_as_volume': ('secret_name', 'secret_name_parameter'),
    'secret_as_env': ('secret_name', 'secret_name_parameter'),
    'config_map_as_volume': ('config_map_name', 'config_map_name_parameter'),
    'config_map_as_env': ('config_map_name', 'config_map_name_parameter'),
    'image_pull_secret': ('secret_name', 'secret_name_parameter'),
    'pvc_mount': ('pvc_name_parameter', 'constant', 'component_input_parameter', 'task_output_parameter'),
}
# argocompiler/container.go addContainerExecutorTemplate mounts these on every step.
_TAKEN = ('/gcs', '/s3', '/minio', '/.local', '/.cache', '/.config', '/kfp-launcher')
_EFFECTS = ('', 'NoSchedule', 'PreferNoSchedule', 'NoExecute')  # Kubernetes' own, as are the operators
_POLICIES = ('Always', 'Never', 'IfNotPresent')


def list_mounts(entry: dict) -> list[str]:
    """The folders that a platform entry mounts into its step, no slash at the end: ['/data', '/serving']."""
    volumes = [volume for name in _VOLUMES for volume in _list_messages(entry, name)]
    return [(pick(volume, 'mount_path') or '').rstrip('/') for volume in volumes]


def check_pipeline_config(config: dict) -> Iterator[Problem]:
    """Names each field of pipelineConfig that one server knows; apiserver/template/v2_template.go parses strictly."""
    for field, version in _SERVERS.items():
        if pick(config, field) is not None:
            where = f'platforms.kubernetes.pipelineConfig.{to_camel(field)}'
            what = f'A server {version} alone knows it; others drop the whole platform document silently.'
            yield Problem('warning', where, what, f'Remove it, unless the server is {version}.')


def check_platform(package: ParsedPackage) -> Iterator[Problem]:
    """Checks every entry of platforms.kubernetes.deploymentSpec.executors."""
    for label, entry in sorted(package.platform.items()):
        where = f'platforms.kubernetes.deploymentSpec.executors.{label}'
        executor = package.executors.get(label)
        if executor is None:
            what = 'No executor has this label, so the server drops the entry silently.'
            yield Problem('error', where, what, f'Name one of: {", ".join(sorted(package.executors)) or "none"}.')
        elif not executor.HasField('container'):  # argocompiler/importer.go importerTask reads no kubernetes config
            yield Problem('warning', where, 'The server ignores it: the step has no container.', 'Remove it.')
        else:
            yield from _check_sources(where, entry)
            yield from _check_mounts(where, list_mounts(entry))
            yield from _check_scheduling(where, entry)


def _list_messages(entry: dict, name: str) -> list[dict]:
    found = pick(entry, name)
    return [message for message in found if isinstance(message, dict)] if isinstance(found, list) else []


def _check_sources(where: str, entry: dict) -> Iterator[Problem]:
    """extendPodSpecPatch and makeVolumeMountPatch."""
    for name, sources in _SOURCES.items():
        for number, message in enumerate(_list_messages(entry, name)):
            path = f'{where}.{to_camel(name)}[{number}]'
            if not any(pick(message, source) for source in sources):
                what = 'It does not say of what; the driver fails the step.'
                yield Problem('error', path, what, f'Give {to_camel(sources[0])}.')
            if name.endswith('_as_env') and not pick(message, 'key_to_env'):
                yield Problem('error', path, 'It sets no variable.', 'Give keyToEnv.')


def _check_mounts(where: str, paths: list[str]) -> Iterator[Problem]:
    for path, times in sorted(Counter(paths).items()):
        if not path.startswith('/'):
            what = f'A mount path is absolute, and not / itself. Received: {path or "/"!r}.'
            yield Problem('error', where, what, 'Give one: /data.')
        elif times > 1:
            what = f'{path} is mounted {times} times; Kubernetes refuses the pod.'
            yield Problem('error', where, what, 'Mount one volume at each path.')
        elif path in _TAKEN:
            what = f'{path} is where the server mounts a folder of its own.'
            yield Problem('error', where, what, 'Mount at another path: /data.')


def _check_scheduling(where: str, entry: dict) -> Iterator[Problem]:
    policy = pick(entry, 'image_pull_policy')
    if policy and policy not in _POLICIES:
        what = f'The driver fails on imagePullPolicy {policy!r}.'
        yield Problem('error', where, what, f'Give one of {", ".join(_POLICIES)}.')
    deadline_s = pick(entry, 'active_deadline_seconds')
    if deadline_s is not None and str(deadline_s).lstrip('-').isdigit() and int(deadline_s) < 1:
        what = f'The driver ignores activeDeadlineSeconds {deadline_s}.'
        yield Problem('error', where, what, 'Give a positive number of seconds, or leave it out.')
    for number, message in enumerate(_list_messages(entry, 'tolerations')):
        operator, effect = pick(message, 'operator') or '', pick(message, 'effect') or ''
        bad = operator not in ('', 'Exists', 'Equal') or effect not in _EFFECTS
        if bad or (operator == 'Exists' and pick(message, 'value')):
            what = f'Kubernetes refuses this toleration: operator {operator!r}, effect {effect!r}.'
            mend = "Exists (without a value) or Equal, and an effect of Kubernetes': NoSchedule."
            yield Problem('error', f'{where}.tolerations[{number}]', what, mend)
