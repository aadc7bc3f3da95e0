"""Checks of a run's root: leftover files, metadata that does not fit the files, a model that differs."""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tfx  # noqa: F401  (registers what ML Metadata's protos need)
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata

from components import features
from pipeline.config import Layout

_LOSS_RTOL = 1e-3  # two runs of the same training differ by rounding
_State = metadata_store_pb2.Execution.State
_GOOD = (_State.COMPLETE, _State.CACHED)


def open_store(layout: Layout) -> MetadataStore:
    """Opens a run's ML Metadata."""
    return MetadataStore(metadata.sqlite_metadata_connection_config(str(layout.metadata)))


def find_metadata_faults(layout: Layout) -> list[str]:
    """Finds executions that never ended or that failed in the newest run, and live artifacts whose files are gone."""
    store = open_store(layout)
    executions = store.get_executions()
    faults = [
        f'execution {execution.id} is {_State.Name(execution.last_known_state)}'
        for execution in executions
        if execution.last_known_state in (_State.RUNNING, _State.NEW)
    ]
    newest = max(store.get_contexts_by_type('pipeline_run'), key=lambda context: context.id)
    faults += [
        f'execution {execution.id} of the newest run is {_State.Name(execution.last_known_state)}'
        for execution in store.get_executions_by_context(newest.id)
        if execution.last_known_state not in _GOOD
    ]
    good = [execution.id for execution in executions if execution.last_known_state in _GOOD]
    made = {event.artifact_id for event in store.get_events_by_execution_ids(good)}
    faults += [
        f'artifact {artifact.id} is live, and {artifact.uri} is gone'
        for artifact in store.get_artifacts_by_id(list(made))
        if artifact.state == metadata_store_pb2.Artifact.LIVE and not Path(artifact.uri).exists()
    ]
    return faults


def find_orphans(layout: Layout) -> list[str]:
    """Finds artifact folders that ML Metadata does not know, and staged files that were never moved."""
    artifacts = open_store(layout).get_artifacts()
    live = {artifact.uri for artifact in artifacts if artifact.state == metadata_store_pb2.Artifact.LIVE}
    folders = [
        folder
        for folder in layout.artifacts.glob('*/*/*')
        if '.system' not in folder.parts and str(folder) not in live  # TFX keeps .system by design
    ]
    return [f'{path} is left over' for path in (*folders, *layout.root.rglob('.*.partial-*'))]


def list_versions(layout: Layout) -> list[Path]:
    """Returns the folders of the pushed versions."""
    return sorted(folder for folder in layout.serving.glob('*') if folder.name.isdigit())


def compute_test_loss(layout: Layout) -> float:
    """Computes the mean cross-entropy of the newest pushed version on the test split."""
    model = tf.saved_model.load(str(list_versions(layout)[-1]))
    files = sorted(str(file) for file in (layout.sample / features.TEST_SPLIT).iterdir())
    records = [record.numpy() for record in tf.data.TFRecordDataset(files, 'GZIP')]
    examples = [tf.train.Example.FromString(record) for record in records]
    labels = [example.features.feature[features.LABEL_KEY].int64_list.value[0] for example in examples]
    probabilities = model.signatures['examples'](tf.constant(records))['probabilities'].numpy()
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def find_model_faults(layout: Layout, reference: Layout) -> list[str]:
    """Finds more or fewer pushed versions than one, or a version whose predictions differ from the reference's."""
    versions = list_versions(layout)
    if not versions:
        return ['nothing was pushed']
    faults = [f'{len(versions)} versions were pushed'] if len(versions) > 1 else []
    loss, expected = compute_test_loss(layout), compute_test_loss(reference)
    if not np.isclose(loss, expected, rtol=_LOSS_RTOL):
        faults.append(f'the pushed model has a loss of {loss:.5f} on test, the reference {expected:.5f}')
    return faults
