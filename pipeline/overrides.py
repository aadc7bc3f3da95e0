"""`--set KEY=VALUE`: overrides settings by their keys, with a did-you-mean.

Text becomes a value, and is held against the setting's type and bounds, in the config classes (components/settings.py).
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from components.errors import UsageError
from components.settings import Schema, Settings, describe_values, find_schema, is_optional, list_options, make_schema

Config = TypeVar('Config', bound=Settings)


def list_fields(config: Settings) -> dict[str, Any]:
    """Returns every setting of a config by its key, as {'trainer.batch_size': 32, ...}."""
    return flatten_settings(dataclasses.asdict(config))


def flatten_settings(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Turns nested settings into flat ones, {'trainer': {'epochs': 2}} into {'trainer.epochs': 2}."""
    fields: dict[str, Any] = {}
    for name, value in tree.items():
        fields |= flatten_settings(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value}
    return fields


def nest_settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Turns flat settings into nested ones, {'trainer.epochs': 2} into {'trainer': {'epochs': 2}}."""
    tree: dict[str, Any] = {}
    for name, value in fields.items():
        *sections, key = name.split('.')
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[key] = value
    return tree


def format_value(value: Any, width: int = 40) -> str:
    """Returns a setting's value as `--set` takes it, cut off after `width` characters."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= width else f'{text[:width]}...'


def list_changes(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Lists how flat settings differ from older ones, such as 'trainer.epochs=2'."""
    return [
        f'{name}={format_value(new[name])}' if name in new else f'{name} is unset'
        for name in sorted(new.keys() | old.keys())
        if name not in new or name not in old or new[name] != old[name]
    ]


def list_sections(keys: Iterable[str]) -> list[str]:
    """Returns what keys begin with, such as 'trainer.*', and the keys without a dot, each once."""
    return list(dict.fromkeys(f'{key.partition(".")[0]}.*' if '.' in key else key for key in keys))


def _find_near(key: str, keys: Iterable[str]) -> str | None:
    """Returns the key that was probably meant: one that looks alike, or one with such a name."""
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.9)
    if near:
        return near[0]
    section, _, name = key.rpartition('.')
    siblings = [each for each in keys if section and each.rpartition('.')[0] == section]
    names: dict[str, str] = {}
    for each in siblings or keys:
        names.setdefault(each.rpartition('.')[2], each)
    cutoff = 0.6 if siblings else 0.7  # fewer names to mistake within a group that exists
    near = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return names[near[0]] if near else None


def _refuse_key(key: str, keys: Iterable[str]) -> UsageError:
    """Makes the error for a key that is not a setting."""
    members = [each for each in keys if each.startswith(f'{key}.')]
    if members:
        return UsageError(f'--set {key}: this is a group of settings; name one of them, such as {members[0]}.')
    near = _find_near(key, keys)
    if near:
        return UsageError(f'--set {key}: there is no such setting; did you mean {near}?')
    sections = ', '.join(list_sections(keys))
    return UsageError(
        f'--set {key}: there is no such setting. There are {sections}; `python -m pipeline run --help-all` lists them.'
    )


def _read_text(key: str, text: str, schema: Schema) -> Any:
    """Makes of a text what pydantic takes: None for 'none', a list where the setting is a tuple, else the text."""
    if text == 'none' and is_optional(schema):
        return None
    (option,) = list_options(schema)
    if option['type'] != 'array':
        return text
    if not text.startswith('['):
        return [item for item in text.split(',') if item]
    try:
        return [str(item) for item in json.loads(text)]
    except ValueError as error:
        raise UsageError(f'{key} must be {describe_values(schema)}. Received: {text!r}') from error


def apply_overrides(config: Config, assignments: list[str]) -> Config:
    """Applies `KEY=VALUE` assignments in any order; where two name one key, the last counts.

    Args:
      config: a tree of immutable dataclasses.
      assignments: such as ['trainer.batch_size=64', 'trainer.head_units=128,64'].

    Returns:
      A changed copy.

    Raises:
      UsageError: an assignment has no '=', names no setting (the message names the nearest), or has a value of a
        different type or outside the setting's bounds.
    """
    keys = list(list_fields(config))
    tree, schema = dataclasses.asdict(config), make_schema(type(config))
    for assignment in assignments:
        key, equals, text = assignment.partition('=')
        if not equals:
            raise UsageError(f'--set takes KEY=VALUE, such as trainer.batch_size=64. Received: {assignment!r}')
        if key not in keys:
            raise _refuse_key(key, keys)
        *parents, name = key.split('.')
        place = tree
        for parent in parents:
            place = place[parent]
        place[name] = _read_text(key, text, find_schema(schema, key.split('.')))
    return type(config)(**tree)  # at once: some settings are valid only together
