"""Settings: the base of every config class. It validates each field and says in one sentence what is wrong."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, ModelWrapValidatorHandler, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from components.errors import UsageError

SETTINGS = ConfigDict(extra='forbid', allow_inf_nan=False, use_attribute_docstrings=True)
"""How pydantic validates a config class. The docstring below a field becomes the field's description in its schema."""

_KINDS = {'integer': 'a whole number', 'number': 'a number', 'string': 'text', 'boolean': 'true or false'}
_BOUNDS = ('greater_than', 'greater_than_equal', 'less_than', 'less_than_equal')

Schema = dict[str, Any]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Settings:
    """An immutable group of settings, one field each.

    A subclass is decorated with `pydantic.dataclasses.dataclass(frozen=True, kw_only=True)`. Its `__post_init__` checks
    what fields must be together, and raises a ValueError that is a whole sentence.

    Raises:
      UsageError: a value has the wrong type or is outside its bounds. The message names the setting by its whole key.
    """

    SECTION: ClassVar[str] = ''
    """Where the class stands in the tree of settings, such as 'trainer'; '' for the root of the tree."""

    @model_validator(mode='wrap')
    @classmethod
    def _explain_errors(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(value)
        except ValidationError as error:
            raise UsageError(explain_error(error, cls)) from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote.

        Raises:
          UsageError: a value has the wrong type or is outside its bounds.
        """
        return TypeAdapter(cls).validate_json(text)

    def to_json(self) -> str:
        """Writes the settings as a JSON object, a key for each field."""
        return TypeAdapter(type(self)).dump_json(self).decode()


def make_schema(settings: type[Settings]) -> Schema:
    """Returns the JSON schema of a config class: each field's kind, choices, bounds and description."""
    return TypeAdapter(settings).json_schema()


def find_schema(root: Schema, path: Sequence[str | int]) -> Schema:
    """Returns the part of a JSON schema that describes one field.

    Args:
      root: from `make_schema`.
      path: of the field, such as ['trainer', 'batch_size']; a whole number is a position in a tuple.
    """
    schema = _resolve(root, root)
    for part in path:
        if isinstance(part, int):
            (array,) = list_options(schema)
            schema = array['items']
        else:
            schema = schema.get('properties', {}).get(part) or schema['additionalProperties']
        schema = _resolve(root, schema)
    return schema


def _resolve(root: Schema, schema: Schema) -> Schema:
    reference = schema.get('$ref')
    return root['$defs'][reference.rpartition('/')[2]] if reference else schema


def list_options(schema: Schema) -> list[Schema]:
    """Returns what a field may hold beside None; the fields here have one such option each."""
    return [option for option in schema.get('anyOf', [schema]) if option.get('type') != 'null']


def is_optional(schema: Schema) -> bool:
    """Returns whether a field may hold None."""
    return len(list_options(schema)) < len(schema.get('anyOf', [schema]))


def describe_bounds(schema: Schema) -> str:
    """Returns a number's bounds in words, such as '0 to below 1'; empty where it has none."""
    least, above = schema.get('minimum'), schema.get('exclusiveMinimum')
    most, below = schema.get('maximum'), schema.get('exclusiveMaximum')
    if above is not None:
        return f'over {above:g}' if below is None else f'between {above:g} and {below:g}'
    if least is None:
        return ''
    if most is not None:
        return f'{least:g} to {most:g}'
    return f'at least {least:g}' if below is None else f'{least:g} to below {below:g}'


def describe_values(schema: Schema) -> str:
    """Returns in words what a field may hold, such as 'one of constant, cosine' or 'a whole number or none'."""
    (option,) = list_options(schema)
    if 'enum' in option:
        words = f'one of {", ".join(option["enum"])}'
    elif option['type'] == 'array':
        words = 'values with commas between them, or a JSON list; each is ' + describe_values(option['items'])
    else:
        words = ', '.join(filter(None, [_KINDS[option['type']], describe_bounds(option)]))
    return f'{words}, or none' if is_optional(schema) else words


def explain_error(error: ValidationError, settings: type[Settings]) -> str:
    """Says in one sentence what pydantic found wrong, such as 'gate.accuracy must be 0 to 1. Received: 94'.

    Args:
      error: the first of its faults is explained.
      settings: the class that was validated.
    """
    fault = error.errors(include_url=False)[0]
    path = [part for part in fault['loc'] if part != '[key]']
    reason = str(fault['ctx']['error']) if fault['type'] == 'value_error' else ''
    if not path:
        return reason or fault['msg']
    key = '.'.join([*filter(None, [settings.SECTION]), *(part for part in path if isinstance(part, str))])
    if fault['type'] == 'missing':
        return f'{key} is missing; it has no default.'
    if fault['type'] == 'unexpected_keyword_argument':
        return f'{key} is not a setting. Received: {fault["input"]!r}'
    if isinstance(path[-1], int):
        key = f'Each value of {key}'
    if reason:
        return f'{key} {reason}. Received: {fault["input"]!r}'
    schema = find_schema(make_schema(settings), path)
    if fault['type'] in _BOUNDS:
        (option,) = list_options(schema)
        return f'{key} must be {describe_bounds(option)}. Received: {fault["input"]}'
    return f'{key} must be {describe_values(schema)}. Received: {fault["input"]!r}'
