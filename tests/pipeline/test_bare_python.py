"""The command line outside of its environment."""

import subprocess
import sys

import pytest

from tests.conftest import PROJECT


@pytest.mark.parametrize('arguments', [[], ['run'], ['--help']])
def test_a_python_without_the_packages_gets_a_sentence(arguments):
    command = [sys.executable, '-S', '-m', 'pipeline', *arguments]
    answer = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (2, '')
    assert answer.stderr.startswith(f'error: {sys.executable} lacks packages that the pipeline needs')
    assert answer.stderr.count('\n') == 1
    assert '`make env`' in answer.stderr
