"""The list of runs: when each was, what was new about it, and what came of it."""

import textwrap
from collections.abc import Sequence
from typing import Any

from components.reasons import list_broken
from pipeline.overrides import list_changes
from pipeline.run_history import Run

_WIDTH = 80  # columns
_INDENT = ' ' * 4


def describe_outcome(run: Run) -> str:
    """Says what came of a run: the version, the first bound that was not kept, or where and why it failed."""
    if run.outcome == 'pushed':
        return f'pushed as version {run.version}'
    if run.outcome == 'refused':
        broken = list_broken(run.reasons)
        others = f' (and {len(broken) - 1} more)' if len(broken) > 1 else ''
        return f'refused: {broken[0]}{others}' if broken else 'refused'
    if run.outcome == 'data refused':
        return run.message  # which says it itself
    where = f' at {run.component}' if run.component else ''
    return f'{run.outcome}{where}: {run.message}' if run.message else f'{run.outcome}{where}'


def _describe(run: Run, before: Run | None) -> list[str]:
    seconds = '' if run.seconds is None else f'  {run.seconds:,.0f} s'
    accuracy = run.accuracy
    measured = f'accuracy {accuracy.value:.3f} on {accuracy.count:,} images; ' if accuracy else ''
    lines = [
        f'{run.run_id}  {run.started:%Y-%m-%d %H:%M}  {run.pipeline}{seconds}',
        f'{measured}{describe_outcome(run)}',
    ]
    if before and run.settings and before.settings:
        known = run.settings.keys() & before.settings.keys()
        changes = list_changes(*({name: each.settings[name] for name in known} for each in (run, before)))
        same = 'settings: the same as those of the run before'
        lines.append(f'settings that differ from the run before: {", ".join(changes)}' if changes else same)
    return lines


def describe_runs(runs: Sequence[Run]) -> list[str]:
    """Describes each run in several lines of at most 80 columns, the oldest run first.

    Returns:
      The lines; the first line of a run starts with its id, and the others are indented.
    """
    lines = []
    for before, run in zip([None, *runs], runs, strict=False):
        first, *paragraphs = _describe(run, before)
        lines.append(first)
        for paragraph in paragraphs:
            lines += textwrap.wrap(
                ' '.join(paragraph.split()),
                _WIDTH,
                initial_indent=_INDENT,
                subsequent_indent=_INDENT * 2,
                break_on_hyphens=False,
            )
    return lines or ['no runs yet']


def to_dict(run: Run) -> dict[str, Any]:
    """Returns what is known of a run as JSON can hold it."""
    return {
        'run': run.run_id,
        'pipeline': run.pipeline,
        'started': run.started.isoformat(timespec='seconds'),
        'seconds': run.seconds,
        'outcome': run.outcome,
        'component': run.component,
        'message': describe_outcome(run),
        'version': run.version,
        'accuracy': run.accuracy.value if run.accuracy else None,
        'settings': run.settings,
        'reasons': [vars(reason) for reason in run.reasons],
        'training': run.training,
    }
