"""The command line: help, usage errors, and what they cost."""

import re
import subprocess
import sys

import pytest

from pipeline.__main__ import main
from tests.conftest import PROJECT

HEAVY = ('tensorflow', 'tfx', 'apache_beam', 'keras', 'numpy')


def test_help_imports_nothing_heavy():
    code = (
        'import sys; from pipeline.__main__ import build_parser; build_parser().format_help(); '
        f'print([name for name in {HEAVY} if name in sys.modules])'
    )
    answer = subprocess.run([sys.executable, '-c', code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == '[]'


@pytest.mark.parametrize('command', ['data', 'run', 'predict', 'doctor'])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, '--help'])
    assert stop.value.code == 0
    assert f'python -m pipeline {command}' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['run', '--preset', 'cifar10'], 'needs --data DIR'),
        (['run', '--set', 'trainer.epoch=3'], r'did you mean trainer\.epochs\?'),
        (['run', '--data', '/nowhere'], '/nowhere/train has no TFRecord files'),
        (['data', '--out', 'd', '--sample', '--limit', '0'], '--limit takes a number of at least 1'),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(arguments, sentence, capsys, tmp_path):
    if arguments[0] == 'run':
        arguments = [*arguments, '--root', str(tmp_path / 'root')]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(sentence, error)
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert not (tmp_path / 'root').exists()


@pytest.mark.parametrize(
    'arguments', [[], ['fly'], ['data', '--out', 'd'], ['data', '--out', 'd', '--sample', '--download']]
)
def test_what_cannot_be_parsed_is_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


@pytest.mark.slow
def test_a_missing_archive_is_one_sentence_and_exit_1(tmp_path):
    from tests.conftest import run_cli

    answer = run_cli('data', '--archive', tmp_path / 'no.tar.gz', '--out', tmp_path / 'd')
    assert answer.returncode == 1
    assert answer.stderr == f'error: {tmp_path}/no.tar.gz is not a file; --archive takes a cifar-10-binary.tar.gz.\n'
    assert answer.stdout == ''
