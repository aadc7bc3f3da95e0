"""Which artifacts a run wrote, and how each of its components ended: read from ML Metadata, which is not changed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UsageError
from pipeline.overrides import nest_settings

if TYPE_CHECKING:
    from pipeline.run_history import Run


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
    settings: the run's settings, nested as in a version; fewer than all for a run that was killed at once.
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


def find_folders(root: Path, run: str | None = None) -> Folders:
    """Finds what a run wrote.

    Args:
      root: the folder of results that was given to `run`.
      run: id of the run, number of the version that it pushed, 'last' or 'previous'; None for the newest.

    Raises:
      UsageError: the folder holds no run, or none with this name.
      StorageError, PipelineError: ML Metadata cannot be read.
    """
    from pipeline.config import Layout
    from pipeline.run_history import find_run, read_runs

    layout = Layout(str(root))
    # A run that is known by its id does not need the others, of which there may be many.
    runs = (read_runs(layout, run) if run else []) or read_runs(layout)
    return list_folders(find_run(runs, run or 'last', root), root)


def list_folders(run: 'Run', root: Path) -> Folders:
    """Lists what a run wrote and still has.

    Args:
      run: as ML Metadata has it.
      root: its folder of results, for the errors.

    Raises:
      UsageError: the run ended before its first component.
    """
    from ml_metadata.proto import metadata_store_pb2

    if not run.steps:
        raise UsageError(f'Run {run.run_id} in {root} ended before its first component.')
    states, digests, artifacts = [], {}, {}
    for step in run.steps:
        execution = step.execution
        state = metadata_store_pb2.Execution.State.Name(execution.last_known_state).lower()
        milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        states.append(ComponentState(step.component, state, milliseconds / 1000, run.memory_mb.get(step.component)))
        if 'source_digest' in execution.custom_properties:
            digests[step.component] = execution.custom_properties['source_digest'].string_value
        for key, artifact in step.outputs.items():
            if Path(artifact.uri).is_dir():
                artifacts[f'{step.component}.{key}'] = Path(artifact.uri)
    return Folders(
        artifacts=artifacts,
        run=run.run_id,
        pipeline=run.pipeline,
        components=tuple(states),
        data=run.settings.get('data', ''),
        settings=nest_settings({key: value for key, value in run.settings.items() if key != 'data'}),
        version=run.version or '',
        digests=digests,
    )
