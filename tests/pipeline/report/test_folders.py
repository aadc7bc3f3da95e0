"""A run's artifacts are found in ML Metadata, and a folder without a run gets a sentence."""

import pytest
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.errors import UsageError
from pipeline.report.folders import DATABASE_FILE, find_folders
from pipeline.report.report import write_report


def add_run(store, root, name: str, state) -> None:
    """Records a run of the component DataCheck, with an output if it is complete."""
    types = {kind: mlmd.ContextType(name=kind) for kind in ('pipeline', 'pipeline_run', 'node')}
    contexts = []
    for kind, title in (('pipeline', 'p'), ('pipeline_run', name), ('node', 'p.DataCheck')):
        contexts.append(mlmd.Context(type_id=store.put_context_type(types[kind]), name=title))
    execution_type = store.put_execution_type(mlmd.ExecutionType(name='components.data_gate.component.DataCheck'))
    execution = mlmd.Execution(type_id=execution_type, last_known_state=state)
    pairs = []
    if state == mlmd.Execution.COMPLETE:
        folder = root / f'report-of-{name}'
        folder.mkdir()
        artifact_type = store.put_artifact_type(mlmd.ArtifactType(name='DataReport'))
        event = mlmd.Event(type=mlmd.Event.OUTPUT)
        event.path.steps.add().key = 'report'
        event.path.steps.add().index = 0
        pairs.append((mlmd.Artifact(type_id=artifact_type, uri=str(folder)), event))
    store.put_execution(execution, pairs, contexts, reuse_context_if_already_exist=True)


@pytest.fixture
def root(tmp_path):
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(tmp_path / DATABASE_FILE)
    connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = metadata_store.MetadataStore(connection)
    add_run(store, tmp_path, 'first', mlmd.Execution.COMPLETE)
    add_run(store, tmp_path, 'second', mlmd.Execution.FAILED)
    return tmp_path


def test_a_run_is_found_by_its_id(root):
    folders = find_folders(root, 'first')
    assert folders.artifacts == {'DataCheck.report': root / 'report-of-first'}
    assert [(each.name, each.state) for each in folders.components] == [('DataCheck', 'complete')]
    assert folders.pipeline == 'p'


def test_the_newest_run_is_the_default_and_a_failed_one_has_no_artifacts(root):
    folders = find_folders(root)
    assert folders.run == 'second'
    assert folders.artifacts == {}
    file, figures = write_report(root, None, None)
    assert file == root / 'report-second.html'
    assert figures.verdict.startswith('Nothing was pushed: DataCheck did not finish')


def test_an_unknown_run_is_refused_with_those_that_exist(root):
    with pytest.raises(UsageError, match='first, second'):
        find_folders(root, 'third')


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match='holds no run'):
        find_folders(tmp_path)


def test_a_report_is_an_html_file_in_a_folder_that_exists(root):
    with pytest.raises(UsageError, match=r'ends in \.html'):
        write_report(root, None, root / 'missing' / 'report.html')
