"""Ctrl-C: a real SIGINT ends a command within two seconds, with a sentence and exit code 130."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

from pipeline import interruption
from tests.conftest import PROJECT

LIMIT_S = 4  # two seconds, and as much again for a busy machine
SENTENCE = 'interrupted; run the same command again to go on: what is finished is reused\n'


def interrupt(code: str) -> tuple[int, str, float]:
    """Runs a Python program, interrupts it when it prints a line, and returns its end.

    Returns:
      Exit code, standard error, and the seconds from the signal to the end.
    """
    command = [sys.executable, '-u', '-c', code]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'ready\n'
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    return process.returncode, error, time.monotonic() - begin


PROGRAM = """
import sys, threading, time
from pipeline import __main__ as command_line
def call(arguments, reporter):
    {body}
command_line._CALLS['run'] = call
sys.exit(command_line.main(['run']))
"""
WAIT = "print('ready'); time.sleep(60)"
BODIES = {
    'waits': WAIT,
    'swallows the exception': f"""try:
        {WAIT}
    except BaseException: time.sleep(60)""",
    'makes an error of it': f"""try:
        {WAIT}
    except BaseException: raise ValueError('a library failed')""",
    'leaves a thread': f"""threading.Thread(target=time.sleep, args=(60,)).start()
    {WAIT}""",
    'sends its output to the log': """from pipeline.console import divert_chatter
    with divert_chatter(verbose=False) as terminal:
        print('ready', file=terminal)
        time.sleep(60)""",
}


@pytest.mark.parametrize('name', BODIES)
def test_a_command_ends_at_once_with_the_sentence_and_130_whatever_the_libraries_do(name):
    code, error, seconds = interrupt(PROGRAM.format(body=BODIES[name]))
    assert (code, error) == (130, SENTENCE)
    assert seconds < LIMIT_S


def test_temporary_folders_are_removed_before_the_end(tmp_path):
    body = f"""import tempfile
    with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):
        {WAIT}"""
    assert interrupt(PROGRAM.format(body=body))[0] == 130
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_is_not_interrupted_leaves_the_signals_as_they_were():
    handler, before = signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with interruption.watch_interrupts('interrupted') as watched:
        assert not watched.is_requested
    after = signal.set_wakeup_fd(before)
    assert after == before
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_interrupted_submit_says_where_the_run_goes_on():
    program = PROGRAM.replace("'run'", "'submit'").replace(
        "['submit']))", "['submit', 'p.yaml', '--host', 'http://h']))"
    )
    body = f"""from components.errors import PipelineError
    try:
        {WAIT}
    except KeyboardInterrupt: raise PipelineError('the run goes on: http://h/run') from None"""
    code, error, _ = interrupt(program.format(body=body))
    assert (code, error) == (130, 'error: the run goes on: http://h/run\n')


WORK = f"""from components.progress import track
    with track('frozen layers', 9) as advance:
        advance(3)
        {WAIT}"""
STUCK_WORK = f"""from components.progress import track
    with track('frozen layers', 9):
        try: {WAIT}
        except BaseException: time.sleep(60)"""


@pytest.mark.parametrize('body', [WORK, STUCK_WORK], ids=['ends itself', 'is ended'])
def test_the_last_event_of_an_interrupted_run_tells_how_to_go_on(body):
    program = PROGRAM.replace("['run']))", "['run', '--json']))").format(body=body)
    command = [sys.executable, '-u', '-c', program]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'ready\n'
        time.sleep(1.5)  # so that the work's first event is due
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=60)
    assert time.monotonic() - begin < LIMIT_S
    last = json.loads(output.splitlines()[-1])
    assert (process.returncode, error) == (130, SENTENCE)
    assert (last['event'], last['exit_code'], last['message']) == ('finished', 130, SENTENCE.rstrip())


@pytest.mark.parametrize('body', [WORK, STUCK_WORK], ids=['ends itself', 'is ended'])
def test_an_interrupted_bar_leaves_only_the_sentence_on_the_terminal(body):
    main, side = pty.openpty()
    environment = {**os.environ, 'TERM': 'xterm', 'COLUMNS': '80'}
    command = [sys.executable, '-u', '-c', PROGRAM.format(body=body)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        shown = b''
        while b'frozen layers' not in shown:
            shown += os.read(main, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # how Linux says that the program has closed the terminal
            while part := os.read(main, 65536):
                shown += part
    os.close(main)
    assert process.returncode == 130
    last_bar = shown.rindex(b'frozen layers')
    assert re.search(rb'\x1b\[K\r\x1b\[K' + re.escape(SENTENCE.rstrip().encode()) + rb'\r\n$', shown[last_bar:]), shown
