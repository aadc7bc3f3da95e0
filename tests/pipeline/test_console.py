"""What is printed: wrapped to the terminal, with short paths, and the libraries' messages once each."""

import io
import logging
import os
import pty
import subprocess
import sys

import pytest

from pipeline import console
from tests.conftest import PROJECT


def test_a_line_wraps_between_words_and_hangs_and_a_pipe_does_not_wrap():
    line = 'Trainer             12.0 s  ' + 'val_accuracy ' * 8
    lines = console.wrap_text(line.strip(), 80, hang=' ' * 28).split('\n')
    assert len(lines) > 1
    assert all(len(each) <= 80 for each in lines)
    assert all(each.startswith(' ' * 28 + 'val_accuracy') for each in lines[1:])
    stream = io.StringIO()
    console.print_line(line, stream)
    assert stream.getvalue() == line + '\n'


def test_each_line_of_a_message_wraps_by_itself():
    text = 'The data was refused:\n  train: one\n  val: two'
    assert console.wrap_text(text, 80) == text


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('{here}/runs/a in {here}/b', 'runs/a in b'),
        ('(log: {here}/runs/a.log)', '(log: runs/a.log)'),
        ('{here}', '{here}'),
        ('/mnt{here}/a', '/mnt{here}/a'),
        ('s3://bucket{here}/a', 's3://bucket{here}/a'),
        ('{here}er/a', '{here}er/a'),
    ],
)
def test_paths_below_the_working_folder_are_relative_and_others_are_not(text, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert console.shorten_paths(text.format(here=tmp_path)) == expected.format(here=tmp_path)


def run_in_terminal(code: str) -> list[str]:
    """The lines that a Python program writes to a terminal of 80 columns."""
    main, terminal = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != 'COLUMNS'}
    with subprocess.Popen([sys.executable, '-c', code], cwd=PROJECT, env=environment, stdout=terminal) as process:
        os.close(terminal)
        content = b''
        try:
            while part := os.read(main, 65536):
                content += part
        except OSError:  # how Linux says that the program has closed the terminal
            pass
        assert process.wait() == 0
    os.close(main)
    return content.decode().splitlines()


def test_a_run_wraps_to_its_terminal_though_its_descriptors_lead_to_the_log():
    lines = run_in_terminal(
        'from pipeline.console import divert_chatter, print_line\n'
        'with divert_chatter(verbose=False) as terminal: print_line("word " * 40, terminal)'
    )
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)


def test_verbose_shows_each_message_once_and_the_first_line_of_notices_and_the_log_has_all(tmp_path):
    log = tmp_path / 'a.log'
    code = (
        'import logging, os, sys; from pathlib import Path; from pipeline.console import divert_chatter\n'
        'with divert_chatter(Path(sys.argv[1]), verbose=True) as terminal:\n'
        '    for _ in range(3): logging.warning("again")\n'
        '    logging.info("node {\\n a\\n}"); logging.warning("two\\nlines"); os.write(2, b"from C\\n")\n'
        'os.write(2, b"after\\n")'
    )
    answer = subprocess.run(
        [sys.executable, '-c', code, str(log)], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert answer.stdout == ''
    shown = answer.stderr
    assert shown.count('root again\n') == 1
    assert 'root node { ... (2 more lines in the log file)\n' in shown
    assert 'root two\nlines\n' in shown
    assert 'from C\n' in shown
    assert 'after\n' in shown
    kept = log.read_text()
    assert kept.count('root again\n') == 3
    assert 'root node {\n a\n}\n' in kept
    assert 'from C\n' in kept


def test_a_traceback_is_shown_whole_even_for_a_notice():
    formatter = console._FirstLine('%(message)s')
    try:
        raise ValueError('bad')
    except ValueError:
        record = logging.LogRecord('a', logging.INFO, '', 0, 'first\nsecond', None, sys.exc_info())
    assert formatter.format(record).startswith('first ... (1 more lines in the log file)\nTraceback')
    assert formatter.format(record).endswith('ValueError: bad')
