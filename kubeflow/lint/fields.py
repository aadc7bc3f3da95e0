"""Unknown fields and wrong types in a compiled document, by the schemas that the server parses it with.

Called by kubeflow/lint/linter.py. The pipeline's schema comes from kfp's protobufs. The Kubernetes platform's comes
from a list, since kfp-kubernetes, which has it as code, is not in the lock.
"""

import difflib
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from kfp.pipeline_spec import pipeline_spec_pb2 as pb


class Problem(NamedTuple):
    """What the server would refuse, drop or ignore. `what` and `mend` are sentences."""

    severity: str  # 'error': refused, or dropped silently; 'warning': accepted, but hardly what was meant
    where: str  # the path in the document: 'root.dag.tasks.Trainer'
    what: str
    mend: str


class MapOf(NamedTuple):
    """A JSON object with any keys, whose values have one shape."""

    values: Any


_PARAMETER = pb.TaskInputsSpec.InputParameterSpec.DESCRIPTOR
_OUTPUT = pb.TaskInputsSpec.InputParameterSpec.TaskOutputParameterSpec.DESCRIPTOR
_TEXTS = MapOf(str)
_NEED = {'key': str, 'operator': str, 'values': [str]}
_POD = {'labels': _TEXTS, 'annotations': _TEXTS}

# Message KubernetesExecutorConfig of kubernetes_platform/proto/kubernetes_executor_config.proto in kubeflow/pipelines.
# A dict is a message, [x] is repeated, MapOf a map, a type a scalar; protobuf's JSON takes camelCase for snake_case.
KUBERNETES_EXECUTOR = {
    'secret_as_volume': [
        {'secret_name': str, 'mount_path': str, 'optional': bool, 'secret_name_parameter': _PARAMETER}
    ],
    'secret_as_env': [
        {
            'secret_name': str,
            'key_to_env': [{'secret_key': str, 'env_var': str}],
            'optional': bool,
            'secret_name_parameter': _PARAMETER,
        }
    ],
    'pvc_mount': [
        {
            'task_output_parameter': _OUTPUT,
            'constant': str,
            'component_input_parameter': str,
            'mount_path': str,
            'pvc_name_parameter': _PARAMETER,
            'sub_path': str,
        }
    ],
    'node_selector': {'labels': _TEXTS, 'node_selector_json': _PARAMETER},
    'pod_metadata': _POD,
    'image_pull_secret': [{'secret_name': str, 'secret_name_parameter': _PARAMETER}],
    'image_pull_policy': str,
    'config_map_as_volume': [
        {'config_map_name': str, 'mount_path': str, 'optional': bool, 'config_map_name_parameter': _PARAMETER}
    ],
    'config_map_as_env': [
        {
            'config_map_name': str,
            'key_to_env': [{'config_map_key': str, 'env_var': str}],
            'config_map_name_parameter': _PARAMETER,
            'optional': bool,
        }
    ],
    'active_deadline_seconds': int,
    'field_path_as_env': [{'name': str, 'field_path': str}],
    'tolerations': [
        {
            'key': str,
            'operator': str,
            'value': str,
            'effect': str,
            'toleration_seconds': int,
            'toleration_json': _PARAMETER,
        }
    ],
    'generic_ephemeral_volume': [
        {
            'volume_name': str,
            'mount_path': str,
            'access_modes': [str],
            'size': str,
            'default_storage_class': bool,
            'storage_class_name': str,
            'metadata': _POD,
            'data_source': {'api_group': str, 'kind': str, 'name': str},  # since 2.17; 2.16 drops it
        }
    ],
    'node_affinity': [
        {'match_expressions': [_NEED], 'match_fields': [_NEED], 'weight': int, 'node_affinity_json': _PARAMETER}
    ],
    'pod_affinity': [
        {
            'match_pod_expressions': [_NEED],
            'match_pod_labels': _TEXTS,
            'topology_key': str,
            'namespaces': [str],
            'match_namespace_expressions': [_NEED],
            'match_namespace_labels': _TEXTS,
            'weight': int,
            'anti': bool,
        }
    ],
    'enabled_shared_memory': {'volume_name': str, 'size': str},
    'empty_dir_mounts': [{'volume_name': str, 'mount_path': str, 'medium': str, 'size_limit': str}],
    'security_context': {'run_as_user': int, 'run_as_group': int, 'run_as_non_root': bool},
}


def to_camel(name: str) -> str:
    """A field's name as protobuf's JSON writes it: 'mountPath' for 'mount_path'."""
    first, *others = name.split('_')
    return first + ''.join(word.capitalize() for word in others)


def pick(message: dict, name: str) -> Any:
    """A field of a message in JSON, by its name in the schema: 'mount_path' finds 'mountPath' too. None if absent."""
    return message.get(name, message.get(to_camel(name)))


def check_fields(value: Any, shape: Any, where: str, verdict: str) -> Iterator[Problem]:
    """Names every field that the schema does not have, and every value of the platform's that has a wrong type.

    Args:
      value: what YAML gave.
      shape: a protobuf Descriptor, or a form as in KUBERNETES_EXECUTOR; None leaves the value to protobuf's parser.
      where: the path of the value.
      verdict: what the server does about a field that it does not know, as the end of a sentence.
    """
    if isinstance(shape, Descriptor):
        if shape.full_name.startswith('google.protobuf.'):
            return
        shape = {field.name: _find_shape(field) for field in shape.fields}
    expected = {dict: dict, MapOf: dict, list: list}.get(type(shape), shape)
    if value is None or expected is None:
        return
    if not _has_type(value, expected):
        yield Problem(
            'error',
            where,
            f'{value!r} is of a type that this field does not take; the server cannot parse it.',
            f'Give it a value of type {_TYPE_NAMES[expected]}.',
        )
    elif isinstance(shape, list):
        for number, item in enumerate(value):
            yield from check_fields(item, shape[0], f'{where}[{number}]', verdict)
    elif isinstance(shape, MapOf):
        for key, item in value.items():
            yield from check_fields(item, shape.values, f'{where}.{key}', verdict)
    elif isinstance(shape, dict):
        yield from _check_message(value, shape, where, verdict)


def _check_message(value: dict, fields: dict, where: str, verdict: str) -> Iterator[Problem]:
    shapes = {name: shape for field, shape in fields.items() for name in (field, to_camel(field))}
    for key, item in value.items():
        path = f'{where}.{key}'.lstrip('.')
        if key in shapes:
            yield from check_fields(item, shapes[key], path, verdict)
        elif key != '@type':  # protobuf's own
            near = difflib.get_close_matches(str(key), shapes, n=1)
            mend = f'Did you mean {near[0]}?' if near else 'Remove it.'
            yield Problem('error', path, f'{key!r} is not a field of the schema here; {verdict}.', mend)


def _find_shape(field: FieldDescriptor) -> Any:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return MapOf(_find_shape(message.fields_by_name['value']))
    return [message] if field.is_repeated else message


_TYPE_NAMES = {str: 'string', int: 'integer', bool: 'boolean', dict: 'mapping', list: 'list'}


def _has_type(value: Any, expected: type) -> bool:
    if expected is int:  # protobuf's JSON writes an int64 as a string
        return not isinstance(value, bool) and str(value).removeprefix('-').isdigit()
    return isinstance(value, expected)
