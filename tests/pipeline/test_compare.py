"""Two runs side by side."""

import json

import pytest
from lxml import html

from pipeline.__main__ import main
from tests.pipeline.recorded_runs import RecordedRuns, State


@pytest.fixture
def root(tmp_path) -> str:
    recorded = RecordedRuns(tmp_path / 'root')
    recorded.add_pushed_run('20260101-100000', '11', 0.9, {'trainer.epochs': 2, 'trainer.seed': 0})
    recorded.add_pushed_run('20260101-110000', '12', 0.925, {'trainer.epochs': 3, 'trainer.seed': 0})
    recorded.add_step('20260101-120000', 'Trainer', 'model', state=State.FAILED)
    recorded.record('20260101-120000', {'trainer.epochs': 4}, 1, 'The weights are gone.', component='Trainer')
    return str(recorded.layout.root)


def test_the_settings_that_differ_and_all_figures_stand_side_by_side_in_80_columns(root, capsys):
    assert main(['compare', '20260101-100000', '12', '--root', root]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [' '.join(line.split()) for line in lines]
    assert rows[0] == '20260101-100000 20260101-110000'
    assert 'settings: 1 differ, 1 are the same' in rows
    assert 'trainer.epochs 2 3' in rows
    assert 'trainer.seed 0 0' not in rows
    assert 'accuracy 0.900 0.925 +0.025' in rows
    assert 'test images 1,000 1,000' in rows
    assert lines[0].index('20260101-110000') == next(line for line in lines if 'accuracy' in line[:8]).index('0.925')


def test_a_run_that_failed_has_a_verdict_and_no_figures(root, capsys):
    assert main(['compare', '20260101-100000', 'last', '--root', root]) == 0
    rows = [' '.join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert 'accuracy 0.900 -' in rows
    assert 'verdict pushed as version 11 failed at Trainer:' in rows
    assert 'The weights are' in rows


def test_json_has_all_settings_and_figures(root, capsys):
    assert main(['compare', '11', '12', '--root', root, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['settings'] == {'trainer.epochs': [2, 3], 'trainer.seed': [0, 0]}
    assert found['metrics']['accuracy'] == [0.9, 0.925]
    assert [run['version'] for run in found['runs']] == ['11', '12']


def test_the_page_has_what_is_printed(root, tmp_path, capfd):
    page = tmp_path / 'comparison.html'
    assert main(['compare', 'previous', 'last', '--root', root, '--out', str(page)]) == 0
    printed = capfd.readouterr().out
    assert printed.endswith(f'\n\nreport {page}\n')
    part = html.fromstring(page.read_text()).get_element_by_id('flips')
    assert part.xpath('string(h2)') == 'Against run 20260101-110000'
    rows = {row.xpath('string(th)'): row.xpath('td/text()') for row in part.xpath('.//tbody/tr')}
    assert rows['trainer.epochs'] == ['3', '4']
    assert rows['accuracy'] == ['0.925', '-']
    assert rows['version'] == ['12', '-']
    assert all(name in printed for name in rows)


def test_a_page_is_an_html_file_and_json_stays_json_beside_it(root, tmp_path, capfd):
    assert main(['compare', '11', '12', '--root', root, '--out', str(tmp_path / 'page.pdf')]) == 2
    assert 'ends in .html' in capfd.readouterr().err
    assert main(['compare', '11', 'last', '--root', root, '--json', '--out', str(tmp_path / 'page.html')]) == 0
    assert json.loads(capfd.readouterr().out)['metrics']['accuracy'] == [0.9, None]


def test_a_run_that_is_not_there_is_one_sentence_that_names_the_command_that_lists_them(root, capsys):
    assert main(['compare', '11', '99', '--root', root]) == 2
    assert capsys.readouterr().err == (
        f'error: {root} has no run and no pushed version 99; `python -m pipeline runs --root {root}` lists the runs.\n'
    )
