"""The command line: help, usage errors, and what they cost."""

import json
import re
import subprocess
import sys

import pytest

from pipeline import __main__ as command_line
from pipeline.__main__ import main
from pipeline.arguments import COMMANDS, build_parser
from tests.conftest import PROJECT

HEAVY = ('tensorflow', 'tfx', 'apache_beam', 'keras', 'numpy')


def get_help(*arguments: str, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize('arguments', ["['--help']", "['run', '--preset', 'cifar10', '--help-all']"])
def test_help_imports_nothing_heavy(arguments):
    code = (
        f'import atexit, sys; atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules])); '
        f'from pipeline.__main__ import main; main({arguments})'
    )
    answer = subprocess.run([sys.executable, '-c', code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == '[]'


def test_no_command_shows_what_a_newcomer_wants_and_exits_2_so_that_a_script_that_forgot_it_fails(capsys):
    assert main([]) == 2
    output = capsys.readouterr()
    assert output.out == ''
    assert max(map(len, output.err.splitlines())) <= 80
    shown = re.findall(r'python -m pipeline (.+)', output.err)
    assert len(shown) == 6  # five things, and the list of all commands
    for command in shown[:-1]:
        build_parser().parse_args(command.replace('--help', '--out d --sample').split())


def test_help_lists_the_commands(capsys):
    text = get_help('--help', capsys=capsys)
    for group in COMMANDS.values():
        for name, line in group.items():
            assert f'  {name:<11} {line}\n' in text


def test_every_command_is_in_the_list_and_has_a_function_and_help(capsys):
    listed = {name for group in COMMANDS.values() for name in group}
    assert listed == set(command_line._CALLS)
    for name in listed:
        assert f'usage: python -m pipeline {name} ' in get_help(name, '--help', capsys=capsys)
    with pytest.raises(SystemExit):
        build_parser().parse_args(['fly'])


def test_run_help_shows_the_settings_that_people_change_first_with_the_default_presets_values(capsys):
    text = get_help('run', '--help', capsys=capsys)
    assert '\n  trainer.backbone=resnet50  (one of resnet50, resnet101, vgg16, ' in text
    assert '\n  trainer.batch_size=16  (a whole number, at least 1)\n      Images in a step.\n' in text
    assert 'trainer.cached_views' not in text
    assert 'kubeflow' not in text


@pytest.mark.parametrize('arguments', [('--preset', 'cifar10-fast', '--help'), ('--help', '--preset=cifar10-fast')])
def test_help_shows_the_values_of_the_chosen_preset_wherever_it_stands(arguments, capsys):
    text = get_help('run', *arguments, capsys=capsys)
    assert 'settings of the preset cifar10-fast' in text
    assert '\n  trainer.batch_size=64  ' in text
    assert '\n  trainer.optimizer=adam  ' in text


def test_help_all_shows_every_setting_that_the_command_reads(capsys):
    text = get_help('run', '--help-all', capsys=capsys)
    assert '\n  trainer.cached_views=0  (a whole number, at least 0)\n' in text
    assert 'Images in a step. The last batch of an epoch, which may be smaller, is trained on too.' in text
    assert 'kubeflow' not in text
    text = get_help('compile', '--help-all', capsys=capsys)
    assert '\n  kubeflow.default.memory=4Gi  ' in text
    assert '\n  trainer.cached_views=0  ' in text


@pytest.mark.parametrize('command', ['run', 'doctor'])
def test_settings_that_a_run_here_does_not_read_are_refused(command, capsys):
    assert main([command, '--set', 'kubeflow.steps.Trainer.gpu=1']) == 2
    assert capsys.readouterr().err == (
        'error: --set kubeflow.steps.Trainer.gpu=1: a run on this machine reads no setting of kubeflow.*; '
        '`python -m pipeline compile` does.\n'
    )


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['run', '--preset', 'cifar10'], 'needs --data DIR'),
        (['run', '--set', 'trainer.epoch=3'], r'did you mean trainer\.epochs\?'),
        (['run', '--set', 'trainer.batch_size=0'], r'^error: trainer\.batch_size must be at least 1\. Received: 0$'),
        (['run', '--data', '/nowhere'], '/nowhere/train has no TFRecord files'),
        (['run', '--set', 'gate.recall_by_class=kat=0.9'], r"the class 'kat', .* Did you mean cat\? It has airplane, "),
        (['data', '--out', 'd', '--sample', '--labels', 'fine'], '--labels chooses between the labels of CIFAR-100'),
        (['data', '--out', 'd', '--sample', '--limit', '0'], '--limit takes a number of at least 1'),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(arguments, sentence, capsys, tmp_path):
    if arguments[0] == 'run':
        arguments = [*arguments, '--root', str(tmp_path / 'root')]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(sentence, error, flags=re.MULTILINE)
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert not (tmp_path / 'root').exists()


@pytest.mark.parametrize(
    'arguments', [['fly'], ['data', '--out', 'd'], ['data', '--out', 'd', '--sample', '--download']]
)
def test_what_cannot_be_parsed_is_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_with_json_a_command_that_cannot_begin_has_one_event_and_the_same_error(tmp_path, capfd):
    assert main(['run', '--json', '--data', '/nowhere', '--root', str(tmp_path / 'root')]) == 2
    output = capfd.readouterr()
    (line,) = output.out.splitlines()
    event = json.loads(line)
    assert (event['event'], event['exit_code']) == ('finished', 2)
    assert output.err == f'error: {event["message"]}\n'


@pytest.mark.parametrize('options', [['--quiet', '--json'], ['--quiet', '--verbose'], ['--json', '--verbose']])
def test_only_one_kind_of_output_can_be_chosen(options, capsys):
    for arguments in (['run'], ['data', '--out', 'd', '--sample']):
        with pytest.raises(SystemExit) as stop:
            main([*arguments, *options])
        assert stop.value.code == 2
        assert f'argument {options[1]}: not allowed with argument {options[0]}' in capsys.readouterr().err


def test_a_run_that_is_told_to_be_one_of_several_workers_says_so_before_anything_runs(tmp_path, monkeypatch, capsys):
    cluster = {'worker': ['a.example:2222', 'b.example:2222']}
    monkeypatch.setenv('TF_CONFIG', json.dumps({'cluster': cluster, 'task': {'type': 'worker', 'index': 0}}))
    assert main(['run', '--root', str(tmp_path / 'root')]) == 2
    assert 'error: The environment variable TF_CONFIG lists 2 workers, and a run' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_missing_archive_is_one_sentence_and_exit_1(tmp_path):
    from tests.conftest import run_cli

    answer = run_cli('data', '--archive', tmp_path / 'no.tar.gz', '--out', tmp_path / 'd')
    assert answer.returncode == 1
    assert answer.stderr == f'error: {tmp_path}/no.tar.gz is not a file; --archive takes a cifar-10-binary.tar.gz.\n'
    assert answer.stdout == ''
