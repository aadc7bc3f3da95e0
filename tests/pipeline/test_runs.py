"""The list of runs, read from a store as TFX writes it."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from components.errors import UsageError
from pipeline.__main__ import main
from pipeline.local import lock_root
from pipeline.run_history import TRAINING_FILE, VERDICT_FILE, find_run, list_inputs, read_runs
from pipeline.run_record import RUN_TYPE, read_record
from pipeline.runs import describe_runs
from tests.documents import PROJECT
from tests.pipeline.recorded_runs import RecordedRuns, State, judge


@pytest.fixture
def recorded(tmp_path) -> RecordedRuns:
    return RecordedRuns(tmp_path / 'root')


def show(recorded: RecordedRuns) -> list[str]:
    lines = describe_runs(read_runs(recorded.layout))
    assert max(map(len, lines)) <= 80
    return lines


def test_a_run_is_shown_with_its_time_its_accuracy_its_version_and_what_was_new(recorded):
    recorded.add_pushed_run('20260101-100000', '11', 0.9, {'trainer.epochs': 2, 'trainer.seed': 0})
    recorded.add_pushed_run('20260101-110000', '12', 0.95, {'trainer.epochs': 3, 'trainer.seed': 0})
    recorded.add_pushed_run('20260101-120000', '12', 0.95, {'trainer.epochs': 3, 'trainer.seed': 0})
    first, second, *others = show(recorded)
    assert re.fullmatch(r'20260101-100000  20\d\d-\d\d-\d\d \d\d:\d\d  cifar10-test  61 s', first)
    assert second == '    accuracy 0.900 on 1,000 images; pushed as version 11'
    assert others[2] == '    settings that differ from the run before: trainer.epochs=3'
    assert others[5] == '    settings: the same as those of the run before'


def test_a_refused_run_names_the_first_bound_that_it_broke_and_counts_the_others(recorded):
    recorded.add_step('a', 'Evaluator', 'evaluation')
    recorded.record('a', {}, 3, 'not pushed', reasons=(judge(0.5), judge(0.4)))
    assert ' '.join(' '.join(show(recorded)[1:]).split()) == (
        'accuracy 0.500 on 1,000 images; refused: accuracy 0.500 < 0.800 on 1,000 test images (and 1 more)'
    )


def test_a_failed_run_says_where_and_why(recorded):
    recorded.add_step('a', 'Trainer', 'model', state=State.FAILED)
    recorded.record('a', {}, 1, 'The weights file /w cannot be read.', component='Trainer')
    assert show(recorded)[1] == '    failed at Trainer: The weights file /w cannot be read.'


def test_refused_data_says_why(recorded):
    recorded.add_step('a', 'DataGate', 'report', state=State.FAILED)
    recorded.record('a', {}, 4, 'The data was refused: 2 labels are wrong', component='DataGate')
    assert show(recorded)[1] == '    The data was refused: 2 labels are wrong'


def test_a_killed_run_is_interrupted_and_one_that_holds_the_lock_is_running(recorded):
    recorded.add_step('a', 'Trainer', 'model', state=State.RUNNING)
    assert show(recorded)[1] == '    interrupted at Trainer'
    with lock_root(recorded.layout.root):
        assert show(recorded)[1] == '    running at Trainer'


def test_a_run_without_a_record_is_read_from_its_executions_and_artifacts(recorded):
    trainer = {'trainer': {'epochs': 2, 'cache_dir': '/c', 'weights': '/w/resnet50.h5'}, 'export': {}}
    recorded.add_step('a', 'Trainer', 'model_run', properties={'custom_config': trainer})
    verdict = {'reasons': [vars(judge(0.9))]}
    recorded.add_step(
        'a', 'Evaluator', 'evaluation', properties={'gate': {'recall': 0.3}}, files={VERDICT_FILE: verdict}
    )
    recorded.add_step('a', 'Pusher', 'pushed_model', version='11')
    (run,) = read_runs(recorded.layout)
    assert run.settings == {'trainer.epochs': 2, 'trainer.weights': 'resnet50.h5', 'gate.recall': 0.3}
    assert (run.outcome, run.version, run.accuracy) == ('pushed', '11', judge(0.9))
    assert run.seconds >= 0


def test_settings_that_only_one_of_two_runs_recorded_are_not_a_difference(recorded):
    recorded.add_pushed_run('a', '11', 0.9, {'trainer.epochs': 2})
    recorded.add_pushed_run('b', '12', 0.9, {'trainer.epochs': 2, 'trainer.seed': 0})
    assert show(recorded)[-1] == '    settings: the same as those of the run before'


def test_the_record_comes_back_as_it_was_written(recorded):
    recorded.add_step('a', 'Trainer', 'model')
    recorded.record('a', {'data': '/d', 'trainer.weights': None}, 3, 'no', seconds=1.5, reasons=(judge(0.5),))
    record = read_record(recorded.store.get_context_by_type_and_name(RUN_TYPE, 'a'))
    assert (record.settings, record.seconds) == ({'data': '/d', 'trainer.weights': None}, 1.5)
    assert record.reasons == (judge(0.5),)
    recorded.record('no such run', {}, 0, '')  # does nothing


def test_a_run_is_found_by_its_id_and_by_the_version_that_it_pushed_first(recorded):
    recorded.add_pushed_run('a', '11')
    recorded.add_pushed_run('b', '11')
    runs = read_runs(recorded.layout)
    assert find_run(runs, 'b', recorded.layout.root).run_id == 'b'
    assert find_run(runs, '11', recorded.layout.root).run_id == 'a'
    assert find_run(runs, 'last', recorded.layout.root).run_id == 'b'
    assert find_run(runs, 'previous', recorded.layout.root).run_id == 'a'
    with pytest.raises(UsageError, match='has no previous run; '):
        find_run(runs[:1], 'previous', recorded.layout.root)


def test_the_inputs_of_a_component_are_listed(recorded):
    model = recorded.add_step('a', 'Trainer', 'model')
    recorded.add_step('a', 'Evaluator', 'evaluation', inputs=(model,), state=State.FAILED)
    assert list_inputs(recorded.layout, 'a', 'Evaluator') == (model.uri,)
    assert list_inputs(recorded.layout, 'b', 'Evaluator') == ()


def test_json_has_every_run(recorded, capsys):
    recorded.add_pushed_run('a', '11', 0.9, {'trainer.epochs': 2})
    assert main(['runs', '--root', str(recorded.layout.root), '--json']) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run['run'], run['outcome'], run['accuracy'], run['settings']) == ('a', 'pushed', 0.9, {'trainer.epochs': 2})
    assert run['training']['best_epoch'] == 2


def test_a_reader_that_leaves_is_no_error(recorded):
    recorded.add_pushed_run('a', '11')
    text = f'{shlex.quote(sys.executable)} -m pipeline runs --root {recorded.layout.root} | true'
    answer = subprocess.run(['bash', '-c', text], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ('', '')


@pytest.mark.parametrize('command', [['runs'], ['compare', 'a', 'b'], ['gc', '--keep', '1']])
def test_a_folder_without_runs_is_one_sentence_and_stays_as_it_is(command, tmp_path, capsys):
    assert main([*command, '--root', str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f'error: {tmp_path} holds no runs; --root takes the folder that `python -m pipeline run` wrote to.\n'
    )
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_one_sentence(recorded, capsys):
    recorded.layout.metadata.write_bytes(b'no store' * 1000)
    assert main(['runs', '--root', str(recorded.layout.root)]) == 1
    assert re.fullmatch(r'error: \S+ is damaged or is not an ML Metadata store .*\n', capsys.readouterr().err)


def test_the_files_are_called_as_their_components_call_them():
    from pipeline import pipeline  # noqa: F401  (TFMA can be imported only after the components of TFX)

    from components.model_gate import verdict  # isort: skip
    from trainer import train  # isort: skip

    assert (verdict.VERDICT_FILE, train.REPORT_FILE) == (VERDICT_FILE, TRAINING_FILE)
