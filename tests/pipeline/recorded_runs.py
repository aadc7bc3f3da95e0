"""Runs as TFX records them in ML Metadata, with small files for artifacts, so that no pipeline needs to run."""

import json
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2

from components.reasons import Reason
from pipeline.config import Layout
from pipeline.run_record import RUN_TYPE, RunRecord, open_store, write_record

State = metadata_store_pb2.Execution
ARTIFACT_BYTES = 40_000


def judge(accuracy: float, bound: float = 0.8) -> Reason:
    """Returns the reason of the model gate's first bound."""
    is_kept = accuracy >= bound
    sentence = f'accuracy {accuracy:.3f} {">=" if is_kept else "<"} {bound:.3f} on 1,000 test images'
    return Reason('accuracy', '', accuracy, bound, 1000, is_kept, sentence)


class RecordedRuns:
    """A root whose runs are added one component at a time."""

    def __init__(self, root: Path):
        root.mkdir(parents=True, exist_ok=True)
        self.layout = Layout(str(root))
        self.store = open_store(self.layout.metadata)

    def _put_context(self, kind: str, name: str) -> int:
        found = self.store.get_context_by_type_and_name(kind, name)
        if found:
            return found.id
        kind_id = self.store.put_context_type(metadata_store_pb2.ContextType(name=kind))
        return self.store.put_contexts([metadata_store_pb2.Context(type_id=kind_id, name=name)])[0]

    def add_step(
        self,
        run_id: str,
        component: str,
        key: str,
        *,
        state: int = State.COMPLETE,
        reused: metadata_store_pb2.Artifact | None = None,
        inputs: tuple[metadata_store_pb2.Artifact, ...] = (),
        files: dict[str, object] | None = None,
        properties: dict[str, object] | None = None,
        version: str = '',
    ) -> metadata_store_pb2.Artifact | None:
        """Adds a component's execution, and gives its output artifact; None if the execution is not complete.

        Args:
          run_id: of the run.
          component: the component's id.
          key: name of its output.
          state: of the execution.
          reused: the artifact of an earlier run, which becomes its output.
          inputs: what the component read.
          files: JSON files of the artifact, by name.
          properties: the execution's, as JSON.
          version: the version that it pushed.
        """
        contexts = [self._put_context(*each) for each in ((RUN_TYPE, run_id), ('pipeline', 'cifar10-test'))]
        kind = self.store.put_execution_type(metadata_store_pb2.ExecutionType(name=f'some.module.{component}'))
        execution = State(type_id=kind, last_known_state=State.CACHED if reused else state)
        for name, value in (properties or {}).items():
            execution.custom_properties[name].string_value = value if isinstance(value, str) else json.dumps(value)
        (execution_id,) = self.store.put_executions([execution])
        self.store.put_attributions_and_associations(
            [], [metadata_store_pb2.Association(execution_id=execution_id, context_id=each) for each in contexts]
        )
        folder = self.layout.artifacts / component / key / str(execution_id)
        artifact = reused
        if state != State.COMPLETE:
            folder.mkdir(parents=True)  # as a component leaves it that ended in the middle
        elif not reused:
            artifact = self._put_artifact(folder, key, files or {}, version)
        event = metadata_store_pb2.Event
        pairs = [(each, event.INPUT) for each in inputs] + ([(artifact, event.OUTPUT)] if artifact else [])
        path = event.Path(steps=[event.Path.Step(key=key), event.Path.Step(index=0)])
        self.store.put_events(
            [event(execution_id=execution_id, artifact_id=each.id, type=kind, path=path) for each, kind in pairs]
        )
        return artifact

    def _put_artifact(
        self, folder: Path, key: str, files: dict[str, object], version: str
    ) -> metadata_store_pb2.Artifact:
        folder.mkdir(parents=True)
        (folder / 'weights').write_bytes(b'x' * ARTIFACT_BYTES)
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
        kind = self.store.put_artifact_type(metadata_store_pb2.ArtifactType(name=key))
        artifact = metadata_store_pb2.Artifact(type_id=kind, uri=str(folder), state=metadata_store_pb2.Artifact.LIVE)
        if version:
            artifact.custom_properties['pushed_version'].string_value = version
        artifact.id = self.store.put_artifacts([artifact])[0]
        return artifact

    def add_pushed_run(
        self, run_id: str, version: str, accuracy: float = 0.9, settings: dict[str, object] | None = None
    ) -> dict[str, metadata_store_pb2.Artifact]:
        """Adds a run with three components that pushed a version, and gives their artifacts by component."""
        reason = judge(accuracy)
        report = {'val_accuracy': accuracy, 'best_epoch': 2, 'images_per_s': 100.0}
        model = self.add_step(run_id, 'Trainer', 'model_run', files={'report.json': report})
        evaluation = self.add_step(
            run_id, 'Evaluator', 'evaluation', inputs=(model,), files={'verdict.json': {'reasons': [vars(reason)]}}
        )
        pushed = self.add_step(run_id, 'Pusher', 'pushed_model', inputs=(model, evaluation), version=version)
        self.record(run_id, settings or {}, 0, f'{reason.sentence}: pushed', reasons=(reason,), seconds=61.0)
        return {'Trainer': model, 'Evaluator': evaluation, 'Pusher': pushed}

    def record(self, run_id: str, settings: dict[str, object], exit_code: int | None, message: str, **fields) -> None:
        """Adds what the local run itself records."""
        record = RunRecord(settings=settings, exit_code=exit_code, message=message, **fields)
        write_record(self.store, run_id, record)
