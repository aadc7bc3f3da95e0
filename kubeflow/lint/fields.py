"""Finds unknown fields and values of a wrong type in a compiled document, by the protobuf schemas of the server.

Called by kubeflow/lint/linter.py. The package kfp has the schema of the pipeline, and kfp-kubernetes has that of the
Kubernetes platform.
"""

import difflib
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from kubeflow.lint.problem import Problem

VERSION_OF_FIELD = {
    # kubernetes_platform/proto/kubernetes_executor_config.proto in kubeflow/pipelines
    'kfp_kubernetes.GenericEphemeralVolume': {'data_source': '2.17'},
    # api/v2alpha1/pipeline_spec.proto in kubeflow/pipelines
    'ml_pipelines.PipelineConfig': {
        'resource_ttl': '2.16',
        'resource_ttl_on_completion': '2.17',
        'resource_ttl_on_success': '2.17',
        'resource_ttl_on_failure': '2.17',
        'active_deadline_seconds': '2.17',
    },
}
"""The server that knows a field, by message, for fields that differ between the servers 2.16 and 2.17. The installed
schemas are those of 2.16, so they lack the fields of 2.17, whose values are not checked here."""

_TYPE_NAMES = {
    FieldDescriptor.CPPTYPE_STRING: 'string',
    FieldDescriptor.CPPTYPE_BOOL: 'boolean',
    FieldDescriptor.CPPTYPE_DOUBLE: 'number',
    FieldDescriptor.CPPTYPE_FLOAT: 'number',
}


def to_camel(name: str) -> str:
    """Returns a field's name as protobuf's JSON writes it: 'mountPath' for 'mount_path'."""
    first, *others = name.split('_')
    return first + ''.join(word.capitalize() for word in others)


def pick(message: dict[str, Any], name: str) -> Any:
    """Returns a field of a message in JSON by its name in the schema, written either way; None if it is not there.

    Args:
      message: JSON of a message.
      name: such as 'mount_path', which finds 'mount_path' and 'mountPath'.
    """
    return message.get(name, message.get(to_camel(name)))


def check_fields(value: Any, message: Descriptor, where: str, verdict: str) -> Iterator[Problem]:
    """Yields a problem for each field that the schema does not have, and for each value of a wrong type.

    The messages of google.protobuf, such as Struct and Duration, are left to protobuf's own parser.

    Args:
      value: what YAML gave for a message.
      message: the schema of the message.
      where: the path of the value in the document; '' for the document itself.
      verdict: what the server does about a field that it does not know, as the end of a sentence.
    """
    if value is None or message.full_name.startswith('google.protobuf.'):
        return
    if not isinstance(value, dict):
        yield _describe_wrong_type(value, where, 'mapping')
        return
    known = {name: field for field in message.fields for name in (field.name, field.json_name)}
    others = {text for name in VERSION_OF_FIELD.get(message.full_name, ()) for text in (name, to_camel(name))}
    for key, item in value.items():
        path = f'{where}.{key}'.lstrip('.')
        if key in known:
            yield from _check_field(item, known[key], path, verdict)
        elif key not in others and key != '@type':  # protobuf's JSON has '@type' in every message of the type Any
            near = difflib.get_close_matches(str(key), {*known, *others}, n=1)
            mend = f'Did you mean {near[0]}?' if near else 'Remove it.'
            yield Problem('error', path, f'{key!r} is not a field of the schema here; {verdict}.', mend)


def _check_field(value: Any, field: FieldDescriptor, where: str, verdict: str) -> Iterator[Problem]:
    if value is None:
        return
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        if not isinstance(value, dict):
            yield _describe_wrong_type(value, where, 'mapping')
            return
        for key, item in value.items():
            yield from _check_one(item, message.fields_by_name['value'], f'{where}.{key}', verdict)
    elif field.is_repeated and not isinstance(value, list):
        yield _describe_wrong_type(value, where, 'list')
    elif field.is_repeated:
        for number, item in enumerate(value):
            yield from _check_one(item, field, f'{where}[{number}]', verdict)
    else:
        yield from _check_one(value, field, where, verdict)


def _check_one(value: Any, field: FieldDescriptor, where: str, verdict: str) -> Iterator[Problem]:
    """Checks a single value of a field, which may be one item of a list or of a map."""
    if field.message_type is not None:
        yield from check_fields(value, field.message_type, where, verdict)
        return
    assert field.containing_type is not None, 'only extensions have none, and these schemas have no extensions'
    message = message_factory.GetMessageClass(field.containing_type)()
    try:
        json_format.ParseDict({field.name: [value] if field.is_repeated else value}, message)
    except (json_format.Error, ValueError, TypeError):
        if field.enum_type is None:
            yield _describe_wrong_type(value, where, _TYPE_NAMES.get(field.cpp_type, 'integer'))
        else:
            what = f'{value!r} is not a value that this field takes; the server cannot parse it.'
            yield Problem('error', where, what, f'Give one of {", ".join(field.enum_type.values_by_name)}.')


def _describe_wrong_type(value: Any, where: str, wanted: str) -> Problem:
    what = f'{value!r} is of a type that this field does not take; the server cannot parse it.'
    return Problem('error', where, what, f'Give it a value of type {wanted}.')
