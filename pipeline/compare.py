"""Two runs side by side: what they were made with, what came of them, and how far apart they are."""

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.overrides import format_value
from pipeline.run_history import Run
from pipeline.runs import describe_outcome, to_dict

_NAME, _VALUE, _CHANGE = 30, 20, 7  # columns, with a space before all but the first: 80 in all
_VERDICT = 120  # characters of it; `runs` shows all
_UNITS = {'latency': 'ms', 'size': 'MB', 'memory': 'MB'}
_TRAINING = {'val_accuracy': 'val_accuracy', 'best_epoch': 'best epoch', 'images_per_s': 'images/s of the training'}
"""Figures of the Trainer's report, and what they are called here."""

Pairs = dict[str, tuple[Any, Any]]
"""Two values by name; None for one that is not known."""


@dataclass(frozen=True)
class Table:
    """A part of a comparison, in words."""

    title: str
    """What is compared; '' for the runs themselves."""
    rows: tuple[tuple[str, ...], ...]
    """Four cells each: a name, its value in the first run and in the second, and the change; '' if it has none."""


def _pair(first: dict[str, Any], second: dict[str, Any]) -> Pairs:
    """Brings the values of two runs together, in the order of the first one's names."""
    return {name: (first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])}


def _list_metrics(run: Run) -> dict[str, Any]:
    """Returns what was measured by name, with the unit where it is not a share."""
    metrics: dict[str, Any] = {'test images': run.accuracy.count} if run.accuracy else {}
    for reason in run.reasons:
        name = reason.metric.replace('_', ' ') + (f' of {reason.slice}' if reason.slice else '')
        unit = _UNITS.get(reason.metric)
        metrics[f'{name}, {unit}' if unit else name] = reason.value
    metrics |= {name: run.training[key] for key, name in _TRAINING.items() if key in run.training}
    if run.seconds is not None:
        metrics['seconds of the run'] = run.seconds
    return metrics


def compare_runs(first: Run, second: Run) -> dict[str, Any]:
    """Returns everything that is known of two runs.

    Returns:
      'runs', both as `pipeline.runs.to_dict` has them; 'settings' and 'metrics', two values by name, None for one that
      is not known.
    """
    settings = _pair(first.settings, second.settings)
    return {
        'runs': [to_dict(first), to_dict(second)],
        'settings': {name: settings[name] for name in sorted(settings)},
        'metrics': _pair(_list_metrics(first), _list_metrics(second)),
    }


def _format_number(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f'{value:.3f}' if abs(value) < 10 else f'{value:,.1f}'
    return '-' if value is None else f'{value:,}' if isinstance(value, int) else format_value(value)


def _format_change(first: Any, second: Any) -> str:
    if first is None or second is None or first == second:
        return ''
    change = second - first
    text = f'{change:+,}' if isinstance(change, int) else f'{change:+.3f}' if abs(change) < 10 else f'{change:+,.0f}'
    return text if float(text.replace(',', '')) else ''  # no change in the digits that are shown


def _make_row(*cells: str) -> Iterator[str]:
    """Makes the lines of a row of up to four cells; text that is too long for its column goes on below."""
    widths = (_NAME, _VALUE, _VALUE, _CHANGE)
    columns = [textwrap.wrap(cell, width) or [''] for cell, width in zip(cells, widths, strict=False)]
    for number in range(max(map(len, columns))):
        parts = [column[number] if number < len(column) else '' for column in columns]
        yield ' '.join(f'{part:<{width}}' for part, width in zip(parts, widths, strict=False)).rstrip()


def tabulate(first: Run, second: Run) -> tuple[Table, ...]:
    """Puts two runs beside each other: how each began and ended, the settings that differ, and all that was measured.

    The first table has no title; the others say in theirs how much there is.
    """
    comparison = compare_runs(first, second)
    common = first.settings.keys() & second.settings.keys()
    known = {name: pair for name, pair in comparison['settings'].items() if name in common}
    differing = {name: pair for name, pair in known.items() if pair[0] != pair[1]}
    runs = (first, second)
    return (
        Table(
            '',
            (
                ('started', *(f'{run.started:%Y-%m-%d %H:%M}' for run in runs), ''),
                ('pipeline', *(run.pipeline for run in runs), ''),
                (
                    'verdict',
                    *(textwrap.shorten(describe_outcome(run), _VERDICT, placeholder=' ...') for run in runs),
                    '',
                ),
                ('version', *(run.version or '-' for run in runs), ''),
            ),
        ),
        Table(
            f'settings: {len(differing)} differ, {len(known) - len(differing)} are the same',
            tuple((name, *map(format_value, pair), '') for name, pair in differing.items()),
        ),
        Table(
            'metrics' if comparison['metrics'] else 'metrics: none, because neither model was evaluated',
            tuple(
                (name, *map(_format_number, pair), _format_change(*pair))
                for name, pair in comparison['metrics'].items()
            ),
        ),
    )


def describe_comparison(first: Run, second: Run) -> list[str]:
    """Describes two runs in lines of at most 80 columns, see `tabulate`."""
    lines = [*_make_row('', first.run_id, second.run_id)]
    for table in tabulate(first, second):
        lines += ['', table.title] if table.title else []
        for row in table.rows:
            lines += _make_row(*row)
    return lines
