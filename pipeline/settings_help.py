"""What `run --help` and `compile --help` say about the settings: value, choices and meaning of each."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.settings import Schema, describe_values, find_schema, make_schema
from pipeline.config import PipelineConfig
from pipeline.console import wrap_text
from pipeline.overrides import list_fields

FIRST: Mapping[str, tuple[str, ...]] = {
    'the network': (
        'trainer.backbone',
        'trainer.image_size',
        'trainer.weights',
        'trainer.train_from',
        'trainer.pooling',
        'trainer.head_units',
        'trainer.dropout',
    ),
    'the training': (
        'trainer.epochs',
        'trainer.batch_size',
        'trainer.optimizer',
        'trainer.learning_rate',
        'trainer.augmentation',
        'trainer.seed',
    ),
    'the bounds that a model must keep to be pushed': (
        'gate.accuracy',
        'gate.recall',
        'gate.calibration_error',
        'gate.baseline',
        'serving_check.max_latency_ms',
    ),
    'the pushed model': ('export.precision', 'serving_check.server', 'serving'),
}
"""The settings that people change first, by what they are about."""


def format_value(value: Any) -> str:
    """Formats a setting's value as `--set` takes it."""
    if value is None:
        return 'none'
    if isinstance(value, bool):
        return str(value).lower()
    return ','.join(str(item) for item in value) if isinstance(value, tuple) else str(value)


def _describe_setting(key: str, value: Any, schema: Schema, *, in_full: bool) -> str:
    field = find_schema(schema, key.split('.'))
    meaning = ' '.join(field['description'].split())
    if not in_full:
        meaning = re.split(r'(?<=\.) (?=[A-Z`\'])', meaning)[0]
    return f'  {key}={format_value(value)}  ({describe_values(field)})\n      {meaning}'


def _list_groups(fields: Mapping[str, Any], *, everything: bool) -> Iterator[tuple[str, list[str]]]:
    if not everything:
        yield from ((title, list(keys)) for title, keys in FIRST.items())
        return
    for section in dict.fromkeys(key.partition('.')[0] if '.' in key else '' for key in fields):
        keys = [key for key in fields if key.startswith(f'{section}.')] if section else []
        yield section or 'the run', keys or [key for key in fields if '.' not in key]


def describe_settings(
    preset: str, config: PipelineConfig, *, everything: bool, hidden: tuple[str, ...], width: int | None
) -> str:
    """Describes the settings of a preset, a group after the other.

    Args:
      preset: its name.
      config: what it makes.
      everything: all settings with their whole meaning; else those that people change first, in a sentence each.
      hidden: beginnings of keys that are left out.
      width: of the terminal in columns; None does not wrap.
    """
    fields = {key: value for key, value in list_fields(config).items() if not key.startswith((*hidden, 'root'))}
    schema = make_schema(PipelineConfig)
    blocks = [f'settings of the preset {preset}, changed with --set KEY=VALUE:']
    for title, keys in _list_groups(fields, everything=everything):
        settings = [_describe_setting(key, fields[key], schema, in_full=everything) for key in keys]
        blocks.append('\n'.join([f'{title}:', *settings]))
    if not everything:
        blocks.append(f'{len(fields)} settings in all; --help-all describes every one of them.')
    return wrap_text('\n\n'.join(blocks), width, hang=' ' * 6)
