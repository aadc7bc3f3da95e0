"""What a command reports while it runs, as events: shown as lines and a bar to a person, and as JSON to a machine.

docs/operations.md lists every event with its keys. pipeline/reporter.py shows them.
"""

import dataclasses
import datetime
import json
import math
from typing import Any, ClassVar

from components.reasons import Reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class Started:
    """The command begins to work; what it was asked for has been checked."""

    name: ClassVar[str] = 'started'
    command: str
    """'run' or 'data'."""
    pipeline: str | None = None
    """The name of the pipeline; None for `data`."""
    root: str | None = None
    """The folder of all results; None for `data`."""
    log: str | None = None
    """The log file; None for `data`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComponentStarted:
    """A component of the pipeline begins, or '(imports)' or '(sample data)' before the first one."""

    name: ClassVar[str] = 'component_started'
    component: str
    """The component's id, as in the lines of a run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worked:
    """How far a piece of work has come. Of a component that reports no work, only its seconds are known."""

    name: ClassVar[str] = 'progress'
    component: str | None
    """The component that works; None outside of one."""
    what: str | None
    """What is being done, such as 'frozen layers'; None if the component reports no work."""
    done: int | None
    """Units that are finished."""
    total: int | None
    """Units in all; None if that is not known."""
    unit: str | None
    """What is counted, in the plural, such as 'images'."""
    seconds: float
    """Seconds since the work began, or since the component began if it reports no work."""
    per_second: float | None
    """Units per second lately; in the last report of the work, over all its time."""
    seconds_left: float | None
    """Forecast for the rest of this work; None while nothing is known."""
    is_finished: bool
    """Whether this is the last report of this work."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noted:
    """Something worth knowing, in words, such as where the frozen layers' outputs are cached."""

    name: ClassVar[str] = 'note'
    component: str | None
    """The component that says it; None outside of one."""
    text: str
    """A line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochFinished:
    """An epoch of the training has ended, its validation included."""

    name: ClassVar[str] = 'epoch'
    text: str
    """The epoch's line."""
    phase: str
    """'head' or 'training'."""
    epoch: int
    """The epoch's number in its phase, from 1."""
    epochs: int
    """Epochs of the phase, unless it stops early."""
    metrics: dict[str, float]
    """Everything that history.json keeps of the epoch, such as accuracy, val_accuracy, images_per_s and seconds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComponentFinished:
    """A component has ended. One that fails has no such event; `finished` says why."""

    name: ClassVar[str] = 'component_finished'
    component: str
    """The component's id."""
    is_reused: bool
    """Whether an earlier run had made its results, so that it did not run."""
    seconds: float
    """How long it took."""
    note: str
    """What it did, in words and numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComponentFailed:
    """A component has failed, and the run with it; `finished` says why."""

    name: ClassVar[str] = 'component_failed'
    component: str
    """The component's id."""
    seconds: float
    """How long it took."""
    inputs: tuple[str, ...]
    """The folders of the artifacts that it read; empty if it failed before it read any."""
    log: str
    """Path of the log file."""
    report: str | None
    """Path of the report on what there is; None if it could not be made."""
    command: str
    """The command to try, when what the error says is mended."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summarized:
    """All components have ended."""

    name: ClassVar[str] = 'summary'
    components: int
    """Number of components."""
    reused: int
    """How many of them were reused."""
    seconds: float
    """Seconds of the whole run."""
    paths: dict[str, str]
    """Where the results are: evaluation, training, report, log, and pushed if a model was pushed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """Whether the model was pushed, and why."""

    name: ClassVar[str] = 'verdict'
    is_pushed: bool
    """Whether the model was pushed."""
    reasons: tuple[Reason, ...]
    """Every bound of the model gate and the serving check, with what was measured, and whether it is kept."""
    lines: tuple[str, ...]
    """The same for a person: the bounds that were not kept."""
    next_steps: tuple[str, ...] = ()
    """Commands that go on from the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """The command has ended, in whatever way. It is always the last event."""

    name: ClassVar[str] = 'finished'
    exit_code: int
    """The exit code."""
    message: str
    """What came of it, in words: the verdict, the error's message, or how to go on after Ctrl-C."""
    seconds: float
    """Seconds since the command began."""


Event = (
    Started
    | ComponentStarted
    | Worked
    | Noted
    | EpochFinished
    | ComponentFinished
    | ComponentFailed
    | Summarized
    | Judged
    | Finished
)

EVENTS: tuple[type[Event], ...] = (
    Started,
    ComponentStarted,
    Worked,
    Noted,
    EpochFinished,
    ComponentFinished,
    ComponentFailed,
    Summarized,
    Judged,
    Finished,
)
"""All events, in the order of a run."""


def _simplify(value: Any) -> Any:
    """Makes values that JSON has: few digits, and null for a number that is none."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _simplify(each) for key, each in value.items()}
    return [_simplify(each) for each in value] if isinstance(value, list | tuple) else value


def to_json(event: Event) -> str:
    """Returns an event as a JSON object in one line: its name as 'event', the time in UTC, and its fields."""
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec='milliseconds')
    return json.dumps({'event': event.name, 'time': time, **_simplify(dataclasses.asdict(event))})
