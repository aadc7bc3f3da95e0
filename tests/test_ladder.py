"""The ladder: its rows, its results and its table, two small trainings that share a frozen pass, and Ctrl-C."""

import dataclasses
import os
import re
import signal
import subprocess
import sys

import pytest

from benchmarks.ladder import __main__ as command, results
from benchmarks.ladder.forecast import forecast_seconds
from benchmarks.ladder.rows import ROWS, Job, Row, find_rows, group_jobs
from components.shares import measure_share
from pipeline.overrides import list_fields
from tests.conftest import PROJECT

SMALL = ('trainer.image_size=32', 'trainer.weights=none', 'trainer.epochs=2', 'trainer.precision=float32')


def make_result(row: Row, seed: int = 0, **changes) -> results.Result:
    fields = {
        'row': row.name,
        'settings': row.settings,
        'seed': seed,
        'images': {'train': 80, 'val': 20, 'test': 100},
        'start': 'ImageNet',
        'weights_file': None,
        'epochs': 5,
        'pass_s': 10.0,
        'training_s': 20.0,
        'val_accuracy': 0.5,
        'test_right': 50,
        'calibration_error': 0.1,
        'precision': 'float32',
        'machine': 'Some CPU',
        'date': '2026-01-02',
    }
    return results.Result(**{**fields, **changes})


def find_row(name: str) -> Row:
    (row,) = find_rows([name])
    return row


def list_differences(first: Row, second: Row) -> set[str]:
    """The settings in which two rows differ."""
    ours, theirs = (list_fields(Job(row, 0).make_config({})) for row in (first, second))
    return {key for key in ours if ours[key] != theirs[key]}


def test_every_row_has_a_name_of_its_own_and_settings_that_are_accepted():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        config = Job(row, 3).make_config({}).trainer
        assert config.seed == 3
        assert not config.head_epochs, 'trainings share the rows of one phase'
        assert sum(forecast_seconds(config)) > 0


@pytest.mark.parametrize(
    ('first', 'second', 'keys'),
    [
        ('densenet121-160-published', 'densenet121-160-published-average', {'pooling'}),
        ('densenet121-160-published', 'densenet121-160-published-no-dropout', {'dropout'}),
        ('densenet121-160-published', 'densenet121-160-published-faster', {'learning_rate'}),
        ('densenet121-160-published', 'densenet121-160-published-average-linear', {'pooling', 'head_units'}),
        ('densenet121-160-last-stage', 'densenet121-160-last-stage-random', {'weights'}),
        ('densenet121-160-last-stage', 'densenet121-160-last-stage-ema', {'weight_average'}),
        ('densenet121-160-last-stage', 'densenet121-224-last-stage', {'image_size'}),
        ('resnet50-64-last-stage-float32', 'resnet50-64-last-stage-bfloat16', {'precision'}),
    ],
)
def test_rows_that_are_compared_differ_only_in_what_their_names_say(first, second, keys):
    assert list_differences(find_row(first), find_row(second)) == {f'trainer.{key}' for key in keys}


def test_a_weights_file_takes_the_place_of_the_download_and_not_of_random_weights():
    given = {'densenet121': '/some/file.h5'}
    assert Job(find_row('densenet121-160-linear'), 0).make_config(given).trainer.weights == '/some/file.h5'
    assert Job(find_row('densenet121-160-linear-random'), 0).make_config(given).trainer.weights == 'none'
    assert Job(find_row('resnet50-160-linear'), 0).make_config(given).trainer.weights == 'imagenet'


def list_group_names(*jobs: tuple[str, int]) -> list[list[tuple[str, int]]]:
    groups = group_jobs([Job(find_row(name), seed) for name, seed in jobs])
    return [[(job.row.name, job.seed) for job in group] for group in groups]


@pytest.mark.parametrize(
    'jobs',
    [
        [('densenet121-160-linear', 0), ('densenet121-160-linear', 1)],
        [('densenet121-160-last-stage', 0), ('densenet121-160-published', 0)],
    ],
)
def test_trainings_with_the_same_frozen_layers_share_a_pass(jobs):
    assert list_group_names(*jobs) == [jobs]


@pytest.mark.parametrize(
    'jobs',
    [
        [('densenet121-160-linear', 0), ('densenet121-160-last-stage', 0)],
        [('densenet121-160-last-stage', 0), ('densenet121-224-last-stage', 0)],
        [('densenet121-160-last-stage', 0), ('densenet121-160-last-stage-mixup', 0)],
        [('densenet121-160-last-stage', 0), ('densenet121-160-last-stage-random', 0)],
        [('densenet121-160-last-stage-random', 0), ('densenet121-160-last-stage-random', 1)],
        [('densenet121-160-last-stage-flip', 0), ('densenet121-160-last-stage-flip', 1)],
        [('resnet50-64-last-stage-float32', 0), ('resnet50-64-last-stage-bfloat16', 0)],
    ],
)
def test_trainings_whose_frozen_layers_give_different_outputs_share_none(jobs):
    assert list_group_names(*jobs) == [[job] for job in jobs]


def test_only_what_was_not_measured_with_these_settings_is_left_to_do(tmp_path):
    row = Row('row', 'a row', ('trainer.epochs=2',), seeds=3)
    results.write_result(tmp_path, Job(row, 1), make_result(row, 1))
    assert [job.seed for job in command.list_jobs([row], None, tmp_path)] == [0, 2]
    assert results.read_row(tmp_path, row) == [make_result(row, 1)]
    changed = row._replace(settings=('trainer.epochs=3',))
    assert [job.seed for job in command.list_jobs([changed], 2, tmp_path)] == [0, 1]
    assert results.read_row(tmp_path, changed) == []


def test_the_table_has_means_over_the_seeds_and_names_what_was_not_run(tmp_path):
    measured, missing = Row('measured', 'some recipe', ()), Row('missing', 'another', ('trainer.epochs=2',))
    for seed, right in enumerate((60, 62, 64)):
        changes = {'test_right': right, 'training_s': 10.0 * seed**2, 'calibration_error': seed / 10}
        results.write_result(tmp_path, Job(measured, seed), make_result(measured, seed, **changes))
    lines = results.make_table(tmp_path, [measured, missing]).splitlines()
    share = measure_share(62, 100)
    assert lines[2] == (
        f'| `measured` | some recipe | ImageNet | 10 + 10 | 5 | 0.500 | **0.620** '
        f'({share.low:.3f} to {share.high:.3f}) | 3: 0.600 to 0.640 | 0.100 |'
    )
    assert lines[3] == '| `missing` | another | not run | | | | | | |'
    assert '- All rows: Some CPU; float32; 2026-01-02; 80 train, 20 val, 100 test images.' in lines
    assert '| `missing` | `--set trainer.epochs=2` |' in lines
    assert len({line.count('|') for line in lines[:4]}) == 1


def test_rows_of_two_machines_are_told_apart(tmp_path):
    first, second = Row('first', 'one', ()), Row('second', 'two', ())
    results.write_result(tmp_path, Job(first, 0), make_result(first))
    results.write_result(tmp_path, Job(second, 0), make_result(second, machine='Other CPU'))
    table = results.make_table(tmp_path, [first, second])
    assert '- `first`: Some CPU;' in table
    assert '- `second`: Other CPU;' in table


def test_the_table_is_written_between_its_markers_and_nowhere_else(tmp_path):
    document = tmp_path / 'page.md'
    document.write_text(f'before\n{results.BEGIN}\nold\n{results.END}\nafter\n')
    results.rewrite_document(document, 'new')
    assert document.read_text() == f'before\n{results.BEGIN}\n\nnew\n\n{results.END}\nafter\n'
    document.write_text('no marker')
    with pytest.raises(ValueError, match=r'page\.md must have the lines'):
        results.rewrite_document(document, 'new')
    assert document.read_text() == 'no marker'


def test_the_settings_in_the_documents_are_those_of_the_rows():
    text = (PROJECT / 'docs' / 'ladder.md').read_text()
    table = text.partition(results.BEGIN)[2].partition(results.END)[0]
    shown = dict(re.findall(r'^\| `([\w-]+)` \| `(--set [^`]*)` \|$', table, flags=re.MULTILINE))
    assert shown == {row.name: ' '.join(f'--set {setting}' for setting in row.settings) for row in ROWS}


def test_the_table_in_the_documents_is_made_of_the_kept_results():
    document = PROJECT / 'docs' / 'ladder.md'
    assert results.make_table(command._OUT, list(ROWS)) in document.read_text()


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, '-m', 'benchmarks.ladder', *arguments]
    return subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)


def test_the_list_shows_every_row_and_a_wrong_pattern_is_explained(tmp_path):
    listed = run_command('--list', '--out', str(tmp_path))
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == [row.name for row in ROWS]
    refused = run_command('--rows', 'resnet5-*')
    assert refused.returncode == 2
    assert 'No row matches resnet5-*' in refused.stderr


@pytest.mark.slow
def test_a_stopped_ladder_leaves_no_process_and_says_how_to_go_on(sample_data, tmp_path):
    line = [sys.executable, '-m', 'benchmarks.ladder', '--data', str(sample_data), '--out', str(tmp_path)]
    with subprocess.Popen(
        line, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while 'training' not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=120)
    assert process.returncode == command.EXIT_INTERRUPTED
    assert error.splitlines()[-1] == 'Stopped. The same command goes on where it was.'
    with pytest.raises(ProcessLookupError):  # its group had the process that trains, too
        os.killpg(process.pid, 0)


@pytest.mark.slow
def test_trainings_that_share_a_pass_are_those_that_run_alone(sample_data, tmp_path):
    from benchmarks.ladder.training import Task, measure_jobs

    shape = ('trainer.pooling=average', 'trainer.learning_rate=1e-3', 'trainer.cache=memory')
    rows = [Row(name, name, (*SMALL, *shape, f'trainer.head_units={units}')) for name, units in (('a', 8), ('b', 16))]
    together, alone = (Task(sample_data, {}, tmp_path / name, None) for name in ('together', 'alone'))
    with (tmp_path / 'printed').open('w') as terminal:
        measure_jobs([Job(row, 0) for row in rows], together, terminal)
        measure_jobs([Job(rows[1], 0)], alone, terminal)
    first, second = (results.read_result(together.out, Job(row, 0)) for row in rows)
    expected = results.read_result(alone.out, Job(rows[1], 0))
    timed = {'pass_s': 0.0, 'training_s': 0.0}
    close = {'val_accuracy': 0.0, 'calibration_error': 0.0}
    assert dataclasses.replace(second, **timed, **close) == dataclasses.replace(expected, **timed, **close)
    assert second.val_accuracy == expected.val_accuracy
    assert second.calibration_error == pytest.approx(expected.calibration_error, abs=1e-5)
    assert first.pass_s == second.pass_s > 0
    assert second.start == 'random'
    assert second.images == {'train': 92, 'val': 8, 'test': 20}
    assert not list((together.out / 'work').iterdir())
    printed = (tmp_path / 'printed').read_text().splitlines()
    assert [line.split(':')[0].strip() for line in printed] == ['a, seed 0', 'b, seed 0', 'b, seed 0']


@pytest.mark.slow
def test_stages_without_trained_weights_are_named(tmp_path):
    import keras
    import numpy as np

    from benchmarks.ladder.training import describe_start
    from trainer.config import TrainerConfig
    from trainer.model import build_backbone

    config = TrainerConfig(image_size=32)
    backbone = build_backbone(config)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.name.startswith('conv5'):
            layer.moving_mean.assign(np.ones(layer.moving_mean.shape))
    assert describe_start(backbone, config) == 'ImageNet, conv5 random'
    assert describe_start(backbone, dataclasses.replace(config, weights='none')) == 'random'
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.ones(layer.moving_mean.shape))
    assert describe_start(backbone, config) == 'ImageNet'
