"""A run's artifacts are found in ML Metadata, and a folder without a run gets a sentence."""

from pathlib import Path

import pytest

from components.errors import PipelineError, UsageError
from pipeline.report.folders import find_folders
from pipeline.report.report import write_report
from tests.pipeline.recorded_runs import RecordedRuns, State


@pytest.fixture
def recorded(tmp_path) -> RecordedRuns:
    """A run whose DataCheck finished, and one whose DataCheck failed."""
    recorded = RecordedRuns(tmp_path)
    recorded.add_step('first', 'DataCheck', 'report', properties={'source_digest': 'abc'})
    recorded.add_step('second', 'DataCheck', 'report', state=State.FAILED)
    return recorded


def test_a_run_is_found_by_its_id(recorded, tmp_path):
    settings = {'trainer.epochs': 3, 'data': '/data'}
    recorded.record('first', settings, 1, 'The disk is full.', memory_mb={'DataCheck': 700.0})
    folders = find_folders(tmp_path, 'first')
    assert list(folders.artifacts) == ['DataCheck.report']
    assert folders.artifacts['DataCheck.report'].is_dir()
    assert [(each.name, each.state, each.memory_mb) for each in folders.components] == [
        ('DataCheck', 'complete', 700.0)
    ]
    assert (folders.pipeline, folders.data, folders.settings) == ('cifar10-test', '/data', {'trainer': {'epochs': 3}})
    assert folders.digests == {'DataCheck': 'abc'}


def test_an_artifact_that_a_run_reused_is_found_under_its_key(recorded, tmp_path):
    made = recorded.add_step('third', 'Trainer', 'model_run')
    recorded.add_step('fourth', 'Trainer', 'model_run', reused=made)
    folders = find_folders(tmp_path)
    assert folders.artifacts == {'Trainer.model_run': Path(made.uri)}
    assert [(each.name, each.state) for each in folders.components] == [('Trainer', 'cached')]


def test_the_newest_run_is_the_default_and_a_failed_one_has_no_artifacts(recorded, tmp_path):
    folders = find_folders(tmp_path)
    assert folders.run == 'second'
    assert folders.artifacts == {}
    file, figures = write_report(tmp_path, None, None)
    assert file == tmp_path / 'report-second.html'
    assert figures.verdict.startswith('Nothing was pushed: DataCheck did not finish')


def test_an_unknown_run_is_refused_with_the_command_that_lists_them(recorded, tmp_path):
    with pytest.raises(UsageError, match='no run and no pushed version third; `python -m pipeline runs'):
        find_folders(tmp_path, 'third')


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match='holds no run'):
        find_folders(tmp_path)


def test_a_report_is_an_html_file_in_a_folder_that_exists(recorded, tmp_path):
    with pytest.raises(UsageError, match=r'ends in \.html'):
        write_report(tmp_path, None, tmp_path / 'missing' / 'report.html')


def test_a_run_is_found_by_its_id_beside_one_whose_artifacts_cannot_be_read(recorded, tmp_path):
    damaged = recorded.add_step('third', 'Evaluator', 'evaluation')
    (Path(damaged.uri) / 'verdict.json').write_text('{')
    assert find_folders(tmp_path, 'first').run == 'first'
    with pytest.raises(PipelineError, match='cannot be read'):
        find_folders(tmp_path, 'third')
