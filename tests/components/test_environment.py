"""The variables that TensorFlow reads when it is loaded."""

import subprocess
import sys

from components.environment import choose_variables
from tests.conftest import PROJECT


def test_onednn_is_on_unless_the_user_has_set_it(monkeypatch):
    monkeypatch.delenv('TF_ENABLE_ONEDNN_OPTS', raising=False)
    assert choose_variables()['TF_ENABLE_ONEDNN_OPTS'] == '1'
    monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', '0')
    assert choose_variables()['TF_ENABLE_ONEDNN_OPTS'] == '0'


def test_it_loads_nothing_that_would_be_too_early():
    code = 'import components.environment, sys; print("tensorflow" in sys.modules)'
    answer = subprocess.run([sys.executable, '-c', code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert answer.stdout == 'False\n'
