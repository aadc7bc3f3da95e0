"""`--set KEY=VALUE`: overrides one field of the config tree, with its type checked and a did-you-mean."""

import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from components.errors import UsageError

Config = TypeVar('Config')


def list_fields(config: Any, prefix: str = '') -> dict[str, Any]:
    """Every field that can be set, as {'trainer.batch_size': 32, ...}."""
    fields = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            fields.update(list_fields(value, f'{prefix}{field.name}.'))
        elif isinstance(value, Mapping):
            for name, part in value.items():
                fields.update(list_fields(part, f'{prefix}{field.name}.{name}.'))
        else:
            fields[prefix + field.name] = value
    return fields


def _parse(text: str, wanted: Any) -> Any:
    """`text` as a value of the annotated type `wanted`; ValueError where it is none."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        if text == 'none':
            return None
        return _parse(text, next(argument for argument in arguments if argument is not type(None)))
    if origin is typing.Literal:
        if text not in arguments:
            raise ValueError
        return text
    if origin is tuple:
        items = json.loads(text) if text.startswith('[') else [item for item in text.split(',') if item]
        return tuple(_parse(str(item), arguments[0]) for item in items)
    if wanted is bool:
        return {'true': True, 'false': False}[text.lower()]
    return wanted(text)


def _describe(wanted: Any) -> str:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Literal:
        return 'one of ' + ', '.join(arguments)
    if origin is tuple:
        return f'{arguments[0].__name__} values with commas between, or a JSON list'
    if origin in (types.UnionType, typing.Union):
        return f'{_describe(arguments[0])} or none'
    return {int: 'a whole number', float: 'a number', str: 'text', bool: 'true or false'}[wanted]


def _replace(config: Config, texts: dict[str, str], prefix: str) -> Config:
    """A copy with every field that `texts` names, at once: settings may be valid only together."""
    hints = typing.get_type_hints(type(config))
    changes, given = {}, []
    for field in dataclasses.fields(config):
        key, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _replace(value, texts, f'{key}.')
        elif isinstance(value, Mapping):
            changes[field.name] = {name: _replace(part, texts, f'{key}.{name}.') for name, part in value.items()}
        elif key in texts:
            given.append(f'--set {key}={texts[key]}')
            try:
                changes[field.name] = _parse(texts[key], hints[field.name])
            except (ValueError, KeyError) as error:
                wanted = _describe(hints[field.name])
                raise UsageError(f'--set {key} takes {wanted}. Received: {texts[key]!r}') from error
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:
        raise UsageError(': '.join(filter(None, (' '.join(given), str(error))))) from error


def apply_overrides(config: Config, assignments: list[str]) -> Config:
    """Applies `KEY=VALUE` assignments, whatever their order; of two for one key, the last.

    Args:
      config: a tree of frozen dataclasses.
      assignments: such as ['trainer.batch_size=64', 'trainer.head_units=128,64'].

    Returns:
      A changed copy.

    Raises:
      UsageError: no '=', no such field (names the nearest), a value of another type or outside its bounds.
    """
    fields, texts = list_fields(config), {}
    for assignment in assignments:
        key, equals, text = assignment.partition('=')
        if not equals:
            raise UsageError(f'--set takes KEY=VALUE, such as trainer.batch_size=64. Received: {assignment!r}')
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            near = near or [field for field in fields if field.rpartition('.')[2] == key]
            sections = dict.fromkeys(re.sub(r'\..*', '.*', field) for field in fields)
            hint = f'did you mean {near[0]}?' if near else f'there are {", ".join(sections)}; see `run --help`.'
            raise UsageError(f'--set {key}: there is no such setting; {hint}')
        texts[key] = text
    return _replace(config, texts, '')
