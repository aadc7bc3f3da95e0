"""Run: what ML Metadata and the artifacts tell of each run of a root."""

import datetime
import fcntl
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from components.errors import PipelineError, UsageError, to_one_line
from components.reasons import Reason
from components.serving_check.report import read_report
from pipeline.config import Layout
from pipeline.overrides import flatten_settings
from pipeline.run_record import RUN_TYPE, RunRecord, open_store, read_record
from pipeline.run_steps import Step, find_output, read_steps
from pipeline.storage import check_metadata_store, explain_fault

# The same as in components.model_gate.verdict and trainer.train, which take seconds to import.
VERDICT_FILE = 'verdict.json'
TRAINING_FILE = 'report.json'

_State = metadata_store_pb2.Execution
# Where TFX keeps settings that a run did not record: component, execution property, and the section of the settings.
_SETTINGS = (
    ('Trainer', 'custom_config', ''),
    ('Evaluator', 'gate', 'gate.'),
    ('ServingCheck', 'config', 'serving_check.'),
    ('DataCheck', 'config', 'data_gate.'),
)
_PATHS = ('trainer.cache_dir', 'trainer.checkpoint_dir')  # not kept with a run, as not with a version

Outcome = Literal['pushed', 'refused', 'data refused', 'failed', 'interrupted', 'running']


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run."""

    run_id: str
    """Its id, which is the name of its log file too."""
    pipeline: str
    """Name of the pipeline, which presets differ in."""
    started: datetime.datetime
    """When its first component began, in local time."""
    seconds: float | None
    """How long it took; None if that is not known."""
    outcome: Outcome
    """What came of it."""
    component: str | None
    """The component that failed, was interrupted, or is running."""
    message: str
    """The verdict, or the error's message; '' if the run has not ended, was killed, or did not record it."""
    version: str | None
    """The version that it pushed, or whose model it made again."""
    settings: dict[str, Any]
    """Its settings by name; fewer than all for a run that was killed at once."""
    reasons: tuple[Reason, ...]
    """Every bound of the model gate and the serving check; empty if the model was not evaluated."""
    training: dict[str, Any]
    """The Trainer's report; empty if it is gone."""
    memory_mb: dict[str, float]
    """Peak memory of the run's process while a component ran, in megabytes, by component; not of reused components."""
    steps: tuple[Step, ...] = field(repr=False)
    """Its components, in the order in which they ran."""

    @property
    def accuracy(self) -> Reason | None:
        """The accuracy on the whole test split."""
        return next((reason for reason in self.reasons if (reason.metric, reason.slice) == ('accuracy', '')), None)


def _read_json(artifact: metadata_store_pb2.Artifact | None, name: str) -> dict[str, Any]:
    """Reads a JSON file of an artifact; {} if there is none any more."""
    file = Path(artifact.uri, name) if artifact else None
    content: dict[str, Any] = json.loads(file.read_text()) if file and file.is_file() else {}
    return content


def _read_reasons(steps: Sequence[Step]) -> tuple[Reason, ...]:
    verdict = _read_json(find_output(steps, 'Evaluator', 'evaluation'), VERDICT_FILE)
    reasons = tuple(Reason(**reason) for reason in verdict.get('reasons', ()))
    blessing = find_output(steps, 'ServingCheck', 'blessing')
    return reasons + (read_report(blessing.uri).reasons if blessing and Path(blessing.uri).is_dir() else ())


def _read_settings(steps: Sequence[Step]) -> dict[str, Any]:
    """Collects the settings from the executions' properties."""
    properties = {step.component: step.execution.custom_properties for step in steps}
    settings: dict[str, Any] = {}
    for component, key, section in _SETTINGS:
        if key in properties.get(component, {}):
            settings |= flatten_settings(json.loads(properties[component][key].string_value), section)
    if 'input_base' in properties.get('ImportExampleGen', {}):
        settings['data'] = properties['ImportExampleGen']['input_base'].string_value
    if 'trainer.weights' in settings:
        settings['trainer.weights'] = settings['trainer.weights'].rpartition('/')[2]
    return {name: value for name, value in settings.items() if name not in _PATHS}


def _judge(steps: Sequence[Step], record: RunRecord | None, version: str | None, *, is_locked: bool) -> Outcome:
    if record and record.exit_code is not None:
        outcomes: dict[int, Outcome] = {0: 'pushed', 3: 'refused', 4: 'data refused'}
        return outcomes.get(record.exit_code, 'failed')
    states = {step.execution.last_known_state for step in steps}
    if is_locked:
        return 'running'
    if _State.FAILED in states:
        return 'failed'
    if _State.RUNNING in states or 'Pusher' not in {step.component for step in steps}:
        return 'interrupted'
    return 'pushed' if version else 'refused'


def _measure_seconds(steps: Sequence[Step], begin_ms: int, outcome: Outcome) -> float | None:
    """Estimates how long a run without a record took, without the imports."""
    if outcome not in ('pushed', 'refused') or not steps:
        return None
    end_ms: int = max(step.execution.last_update_time_since_epoch for step in steps)
    return (end_ms - begin_ms) / 1000


def _read_run(store: metadata_store.MetadataStore, context: metadata_store_pb2.Context, *, is_locked: bool) -> Run:
    steps, record = read_steps(store, context.id), read_record(context)
    pushed = find_output(steps, 'Pusher', 'pushed_model')
    # Asking a map of a message for a key that it lacks would add the key.
    is_pushed = pushed is not None and 'pushed_version' in pushed.custom_properties
    version = pushed.custom_properties['pushed_version'].string_value if pushed and is_pushed else ''
    outcome = _judge(steps, record, version, is_locked=is_locked)
    reasons = record.reasons if record and record.reasons else _read_reasons(steps)
    component = record.component if record else None
    if outcome in ('failed', 'interrupted', 'running') and not component and steps:
        component = steps[-1].component
    pipelines = store.get_contexts_by_execution(steps[0].execution.id) if steps else []
    seconds = record.seconds if record else _measure_seconds(steps, context.create_time_since_epoch, outcome)
    return Run(
        run_id=context.name,
        pipeline=next((each.name for each in pipelines if each.type == 'pipeline'), ''),
        started=datetime.datetime.fromtimestamp(context.create_time_since_epoch / 1000).astimezone(),
        seconds=seconds,
        outcome=outcome,
        component=component,
        message=record.message if record else '',
        version=version or None,
        settings=record.settings if record and record.settings else _read_settings(steps),
        reasons=reasons,
        training=(record.training if record else {})
        or _read_json(find_output(steps, 'Trainer', 'model_run'), TRAINING_FILE),
        memory_mb=record.memory_mb if record else {},
        steps=steps,
    )


def _is_locked(root: Path) -> bool:
    """Whether a run is using the root."""
    file = root / 'lock'
    if not file.exists():
        return False
    with file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check_root(layout: Layout) -> None:
    """Checks that a folder is the root of runs.

    Raises:
      UsageError: it has no ML Metadata.
      StorageError: ML Metadata is locked or damaged.
    """
    if not layout.metadata.is_file():
        raise UsageError(
            f'{layout.root} holds no runs; --root takes the folder that `python -m pipeline run` wrote to.'
        )
    check_metadata_store(layout)


def read_runs(layout: Layout, run_id: str | None = None) -> list[Run]:
    """Reads the runs of a root, the oldest first.

    Args:
      layout: the root.
      run_id: id of the only run to read; None for all of them.

    Raises:
      UsageError, StorageError: see `check_root`.
      PipelineError: ML Metadata, or a file that it names, cannot be read.
    """
    check_root(layout)
    is_locked = _is_locked(layout.root)
    try:
        store = open_store(layout.metadata, is_read_only=True)
        contexts = sorted(store.get_contexts_by_type(RUN_TYPE), key=lambda context: context.id)
        newest = contexts[-1].id if contexts else None
        wanted = [each for each in contexts if run_id in (None, each.name)]
        return [_read_run(store, each, is_locked=is_locked and each.id == newest) for each in wanted]
    except Exception as error:
        raise explain_fault(error, layout) or PipelineError(
            f'The runs in {layout.root} cannot be read: {to_one_line(error)}'
        ) from error


def list_inputs(layout: Layout, run_id: str, component: str) -> tuple[str, ...]:
    """Lists the folders of the artifacts that a component of a run read, each once."""
    store = open_store(layout.metadata, is_read_only=True)
    context = store.get_context_by_type_and_name(RUN_TYPE, run_id)
    steps = read_steps(store, context.id) if context else ()
    return tuple(artifact.uri for step in steps if step.component == component for artifact in step.inputs)


def find_run(runs: Sequence[Run], text: str, root: Path) -> Run:
    """Finds a run by its id, by the version that it pushed, or as 'last' or 'previous'.

    Raises:
      UsageError: there is none.
    """
    position = {'last': 1, 'previous': 2}.get(text)
    if position and position <= len(runs):
        return runs[-position]
    for run in reversed(runs):
        if text == run.run_id:
            return run
    for run in runs:  # later runs may have found the same model pushed already
        if text == run.version:
            return run
    command = shlex.join(['python', '-m', 'pipeline', 'runs', '--root', str(root)])
    what = f'{text} run' if position else f'run and no pushed version {text}'
    raise UsageError(f'{root} has no {what}; `{command}` lists the runs.')
