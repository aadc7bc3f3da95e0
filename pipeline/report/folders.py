"""Which artifacts a run wrote, and how each of its components ended: read from ML Metadata, which is not changed."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import UsageError

DATABASE_FILE = 'metadata.sqlite'  # in a run's root
_PIPELINE_TYPE = 'pipeline'
_SETTINGS_COMPONENT, _SETTINGS_PROPERTY = 'Pusher', 'custom_config'


@dataclass(frozen=True)
class ComponentState:
    """How one component of a run ended.

    name: such as 'Trainer'.
    state: ML Metadata's word in lower case: 'complete', 'cached', 'failed' or 'running'.
    seconds: its duration; that of a reused component is the time it took to find the result.
    memory_mb: peak memory of the run's process while it ran, in megabytes; None for a reused one, and where the system
      did not tell.
    images_per_s: images that it read, per second of its duration, the loading of models included; of the Trainer, those
      that it trained on per second; None if it reads no images, or was reused.
    """

    name: str
    state: str
    seconds: float
    memory_mb: float | None = None
    images_per_s: float | None = None


@dataclass(frozen=True)
class Folders:
    """The artifacts of one run, and what ML Metadata says of the run.

    artifacts: folders by component and output, such as 'Evaluator.evaluation'; only those that exist.
    run: id of the run.
    pipeline: name of the pipeline.
    components: in the order in which they began.
    data: where the data came from, in words; '' if that was not recorded.
    settings: the run's settings, nested as in a version; empty if the run ended before they were recorded.
    version: number of the version that was pushed; '' if none was.
    digests: digests of each component's source, by component.
    """

    artifacts: dict[str, Path] = field(default_factory=dict)
    run: str = ''
    pipeline: str = ''
    components: tuple[ComponentState, ...] = ()
    data: str = ''
    settings: dict[str, Any] = field(default_factory=dict)
    version: str = ''
    digests: dict[str, str] = field(default_factory=dict)

    def find(self, name: str, file: str = '') -> Path | None:
        """Returns an artifact's folder or a file in it; None if there is no such thing."""
        folder = self.artifacts.get(name)
        path = folder / file if folder else None
        return path if path and path.exists() else None


def _choose_run(runs: list[Any], run: str | None, root: Path) -> Any:
    """Returns the context of the run with an id, or of the newest one."""
    by_id = {context.name: context for context in runs}
    if not by_id:
        raise UsageError(f'{root} holds no run; `python -m pipeline run --root {root}` makes one.')
    if run is None:
        return max(runs, key=lambda context: (context.create_time_since_epoch, context.id))
    if run not in by_id:
        raise UsageError(f'--run {run}: {root} holds no such run, but {", ".join(sorted(by_id))}.')
    return by_id[run]


def find_folders(root: Path, run: str | None = None) -> Folders:
    """Finds what a run wrote.

    Args:
      root: the folder of results that was given to `run`.
      run: id of the run; None for the newest.

    Raises:
      UsageError: the folder holds no run, or none with this id.
    """
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    from pipeline.run_record import RUN_TYPE, open_store, read_record

    database = root / DATABASE_FILE
    if not database.is_file():
        raise UsageError(f'{root} holds no run: it has no {DATABASE_FILE}. Give the --root of a run.')
    store = open_store(database, is_read_only=True)
    context = _choose_run(store.get_contexts_by_type(RUN_TYPE), run, root)
    executions = store.get_executions_by_context(context.id)
    if not executions:
        raise UsageError(f'Run {context.name} in {root} ended before its first component.')
    types = {kind.id: kind.name.rpartition('.')[2] for kind in store.get_execution_types()}
    names = {each.id: types[each.type_id] for each in executions}
    for each in executions:
        for node in store.get_contexts_by_execution(each.id):
            if node.type == 'node':
                names[each.id] = node.name.rpartition('.')[2]
    executions.sort(key=lambda each: (each.create_time_since_epoch, each.id))
    record = read_record(context)
    states, digests, data = [], {}, ''
    settings: dict[str, Any] = {}
    for each in executions:
        name, properties = names[each.id], each.custom_properties
        state = mlmd.Execution.State.Name(each.last_known_state).lower()
        milliseconds = each.last_update_time_since_epoch - each.create_time_since_epoch
        states.append(ComponentState(name, state, milliseconds / 1000, record.memory_mb.get(name) if record else None))
        if 'source_digest' in properties:
            digests[name] = properties['source_digest'].string_value
        if 'input_base' in properties:
            data = properties['input_base'].string_value
        if name == _SETTINGS_COMPONENT and _SETTINGS_PROPERTY in properties:
            recorded = json.loads(properties[_SETTINGS_PROPERTY].string_value)
            data, settings = recorded.get('data') or '', recorded.get('settings') or {}
    artifacts, version = {}, ''
    found = {artifact.id: artifact for artifact in store.get_artifacts_by_context(context.id)}
    for event in store.get_events_by_execution_ids([each.id for each in executions]):
        artifact = found.get(event.artifact_id)
        if event.type != mlmd.Event.OUTPUT or artifact is None or not Path(artifact.uri).is_dir():
            continue
        key = next(step.key for step in event.path.steps if step.key)
        artifacts[f'{names[event.execution_id]}.{key}'] = Path(artifact.uri)
        if artifact.custom_properties['pushed'].int_value:
            version = artifact.custom_properties['pushed_version'].string_value
    pipeline = next(
        (each.name for each in store.get_contexts_by_execution(executions[0].id) if each.type == _PIPELINE_TYPE), ''
    )
    return Folders(artifacts, context.name, pipeline, tuple(states), data, settings, version, digests)
