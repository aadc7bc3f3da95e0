"""What a command shows while it runs: lines in a pipe, a bar on a terminal, JSON for machines, or only the end."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import threading
import time

import pytest

from components.progress import Progress, track
from components.reasons import Reason
from pipeline import reporter as reporters
from pipeline.events import (
    EVENTS,
    ComponentFailed,
    ComponentFinished,
    ComponentStarted,
    EpochFinished,
    Finished,
    Judged,
    Noted,
    Started,
    Summarized,
)
from pipeline.reporter import BarReporter, JsonReporter, LineReporter, QuietReporter, choose_mode, open_reporter
from tests.conftest import PROJECT

REASON = Reason('recall', 'cat', 0.2, 0.3, 10, False, 'recall of cat 0.200 < 0.300 on 10')
RUN = (
    Started(command='run', pipeline='p', root='/r', log='/r/a.log'),
    ComponentStarted(component='StatisticsGen'),
    ComponentFinished(component='StatisticsGen', is_reused=True, seconds=1.5, note='10 train'),
    ComponentStarted(component='Trainer'),
    Noted(component='Trainer', text='cache off'),
    EpochFinished(text='epoch 1', phase='training', epoch=1, epochs=2, metrics={'loss': float('nan')}),
    ComponentFinished(component='Trainer', is_reused=False, seconds=100.0, note='done'),
    Summarized(components=2, reused=1, seconds=102.0, paths={'log': '/r/a.log'}),
    Judged(
        is_pushed=False, reasons=(REASON,), lines=(REASON.sentence,), next_steps=(f'python -m pipeline {"x" * 90}',)
    ),
    Finished(exit_code=3, message='not pushed: 1 of 1 bounds was not kept', seconds=102.0),
)
CLOSING = [
    '2 components, 1 reused, 102 s in all',
    '  log        /r/a.log',
    '  recall of cat 0.200 < 0.300 on 10',
    'not pushed: 1 of 1 bounds was not kept',
    f'  next       python -m pipeline {"x" * 90}',  # in one line on every terminal, to be copied
]
FAILED = ComponentFailed(
    report='runs/report-7.html',
    component='Trainer',
    seconds=4.2,
    inputs=('/r/a/1',),
    log='/r/a.log',
    command='python -m pipeline run',
)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """Keeps what a terminal of 80 columns would show, line by line; the last line may be a bar."""

    encoding = 'utf-8'

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return -1

    def list_lines(self) -> list[str]:
        lines, self._column = [''], 0
        for part in re.findall(r'\x1b\[K|\r|\n|[^\x1b\r\n]+', self.getvalue()):
            if part == '\n':
                lines.append('')
            elif part == '\r':
                self._column = 0
            elif part == '\x1b[K':
                lines[-1] = lines[-1][: self._column]
            else:
                column = self._column if lines[-1] else 0
                lines[-1] = lines[-1][:column] + part + lines[-1][column + len(part) :]
                self._column = column + len(part)
        return lines


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    return Terminal()


def report_run(reporter):
    for event in RUN:
        reporter.report(event)


def test_a_run_is_a_line_for_each_component_note_and_epoch_and_the_closing_lines(clock):
    stream = io.StringIO()
    report_run(LineReporter(stream, clock))
    assert stream.getvalue().splitlines() == [
        'Pipeline p in /r',
        'StatisticsGen        1.5 s  reused: 10 train',
        '    cache off',
        '    epoch 1',
        'Trainer            100.0 s  done',
        *CLOSING,
    ]


def test_quiet_prints_only_the_closing_lines(clock):
    stream = io.StringIO()
    reporter = QuietReporter(stream, clock)
    report_run(reporter)
    reporter.hear(Progress('frozen layers', 1, 2, 'images', 99.0))
    clock.now = 99
    reporter.tick()
    assert stream.getvalue().splitlines() == CLOSING


def test_an_error_is_not_among_the_results_because_it_goes_to_standard_error(clock):
    stream = io.StringIO()
    QuietReporter(stream, clock).finish(4, 'The data was refused')
    assert stream.getvalue() == ''


def list_ticks(reporter, clock, seconds: int) -> list[int]:
    """Lets the clock run, and returns the seconds at which something was printed."""
    printed, before = [], reporter._stream.tell()
    for _ in range(seconds):
        clock.now += 1
        reporter.tick()
        if reporter._stream.tell() > before:
            printed.append(clock.now)
            before = reporter._stream.tell()
    return printed


def test_a_component_that_reports_nothing_gets_a_line_every_thirty_seconds(clock):
    reporter = LineReporter(io.StringIO(), clock)
    reporter.report(ComponentStarted(component='StatisticsGen'))
    assert list_ticks(reporter, clock, 95) == [30, 60, 90]
    assert reporter._stream.getvalue().splitlines()[1] == '    StatisticsGen: 60 s so far'


def test_any_line_puts_off_the_next_line_of_progress(clock):
    reporter = LineReporter(io.StringIO(), clock)
    reporter.report(ComponentStarted(component='Trainer'))
    clock.now = 20
    reporter.note('cache off')
    assert list_ticks(reporter, clock, 40) == [50]


def test_a_line_names_the_innermost_work_and_the_time_left_of_all_of_it(clock):
    reporter = LineReporter(io.StringIO(), clock)
    reporter.hear(Progress('training', 100, 1000, 'images', 10.0, speed=10.0))
    reporter.hear(Progress('training epoch 2 of 10', 10, 100, 'images', 1.0, speed=2.0))
    clock.now = 30
    reporter.tick()
    assert reporter._stream.getvalue() == (
        '    training epoch 2 of 10: 10 of 100 images, 2.0 images/s, 15 s left (training: 60 s left)\n'
    )


def test_work_that_failed_is_forgotten_with_its_component(clock):
    reporter = LineReporter(io.StringIO(), clock)
    reporter.report(ComponentStarted(component='Trainer'))
    reporter.hear(Progress('frozen layers', 1, 2, 'images', 1.0))
    reporter.report(ComponentStarted(component='Pusher'))
    list_ticks(reporter, clock, 30)
    assert reporter._stream.getvalue() == '    Pusher: 30 s so far\n'


def test_after_the_end_nothing_more_is_shown(clock):
    for kind in (LineReporter, JsonReporter):
        stream = io.StringIO()
        reporter = kind(stream, clock)
        reporter.report(ComponentStarted(component='Trainer'))
        reporter.finish(1, 'failed')
        text = stream.getvalue()
        reporter.finish(130, 'interrupted')
        reporter.hear(Progress('frozen layers', 1, 2, 'images', 99.0))
        clock.now += 99
        reporter.tick()
        assert stream.getvalue() == text


def test_a_bar_is_in_one_line_of_the_terminal_and_gone_before_the_next_line(clock, terminal):
    reporter = BarReporter(terminal, clock)
    reporter.report(ComponentStarted(component='Trainer'))
    reporter.hear(Progress('training', 100, 1000, 'images', 10.0, speed=10.0))
    reporter.hear(Progress('training epoch 2 of 10', 4043, 8984, 'images', 11.9, speed=340.2))
    clock.now = 1
    reporter.tick()
    reporter.tick()
    (line,) = terminal.list_lines()
    assert re.fullmatch(r'training epoch 2 of 10  45%\|.+\| 4043/8984, 340/s, 00:13 left, 01:29 in all', line), line
    assert len(line) == 77, 'terminals show ^C behind it, and that must not wrap'
    reporter.note('best so far')
    assert terminal.list_lines() == ['    best so far', '']
    reporter.tick()
    assert terminal.list_lines()[-1] == line
    reporter.hear(Progress('training epoch 2 of 10', 8984, 8984, 'images', 20.0, is_finished=True))
    assert terminal.list_lines() == ['    best so far', '']


def test_a_component_that_reports_nothing_shows_its_name_and_seconds(clock, terminal):
    reporter = BarReporter(terminal, clock)
    reporter.report(ComponentStarted(component='Evaluator'))
    reporter.tick()
    assert terminal.list_lines() == [''], 'what is over at once shows nothing'
    clock.now = 12
    reporter.tick()
    assert terminal.list_lines() == ['Evaluator: 12 s so far']
    reporter.finish(1, 'Evaluator failed')
    assert terminal.list_lines() == ['']


@pytest.mark.parametrize('columns', ['200', '80', '40'])
def test_no_bar_is_wider_than_the_terminal(columns, clock, terminal, monkeypatch):
    monkeypatch.setenv('COLUMNS', columns)
    reporter = BarReporter(terminal, clock)
    reporter.hear(Progress('x' * 60, 4043, 8984, 'images', 11.9))
    reporter.tick()
    reporter.hear(Progress('y' * 300, 0, None, 'images', 11.9))
    reporter.tick()
    assert all(len(line) <= int(columns) - 3 for line in terminal.list_lines())


def test_a_terminal_without_unicode_gets_a_bar_in_ascii(clock, terminal):
    terminal.encoding = 'ascii'
    reporter = BarReporter(terminal, clock)
    reporter.hear(Progress('download', 40_000_000, 170_000_000, 'bytes', 10.0))
    reporter.tick()
    (line,) = terminal.list_lines()
    assert line.isascii()
    assert line.endswith('40.0M/170M, 4.0 MB/s, 00:32 left')


def read_json(stream: io.StringIO) -> list[dict]:
    return [json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()]


def test_json_is_an_object_in_a_line_for_each_event_with_a_number_or_null_for_every_value(clock):
    stream = io.StringIO()
    report_run(JsonReporter(stream, clock))
    events = read_json(stream)
    assert [each['event'] for each in events] == [event.name for event in RUN]
    assert all(re.fullmatch(r'20\S+T\S+\+00:00', each['time']) for each in events)
    assert events[5]['metrics'] == {'loss': None}
    assert events[8]['reasons'][0]['sentence'] == REASON.sentence
    assert (events[9]['exit_code'], events[9]['message']) == (3, 'not pushed: 1 of 1 bounds was not kept')


def test_json_reports_work_once_a_second_and_at_its_end_and_nothing_of_short_work(clock):
    stream = io.StringIO()
    reporter = JsonReporter(stream, clock)
    reporter.report(ComponentStarted(component='Trainer'))
    for step in range(26):
        clock.now = step / 10
        reporter.hear(Progress('frozen layers', step, 26, 'images', clock.now))
    reporter.hear(Progress('frozen layers', 26, 26, 'images', 2.6, is_finished=True))
    reporter.hear(Progress('short', 0, 1, 'files', 0.0))
    reporter.hear(Progress('short', 1, 1, 'files', 0.1, is_finished=True))
    _, *events = read_json(stream)
    assert [(each['what'], each['done'], each['is_finished']) for each in events] == [
        ('frozen layers', 10, False),
        ('frozen layers', 20, False),
        ('frozen layers', 26, True),
    ]
    assert events[0]['component'] == 'Trainer'
    assert (events[0]['per_second'], events[0]['seconds_left']) == (10, 1.6)


def test_json_reports_a_component_without_work_every_thirty_seconds(clock):
    reporter = JsonReporter(io.StringIO(), clock)
    reporter.report(ComponentStarted(component='StatisticsGen'))
    assert list_ticks(reporter, clock, 65) == [30, 60]
    event = read_json(reporter._stream)[-1]
    assert (event['event'], event['component'], event['what'], event['seconds']) == (
        'progress',
        'StatisticsGen',
        None,
        60,
    )


@pytest.mark.parametrize('kind', [QuietReporter, LineReporter, BarReporter])
def test_a_run_that_failed_says_where_what_it_read_and_what_to_try(kind, terminal):
    reporter = kind(terminal)
    for event in (RUN[3], FAILED):
        reporter.report(event)
    assert terminal.list_lines() == ['']
    reporter.finish(1, 'The weights are gone.')
    assert terminal.list_lines() == [
        'failed at Trainer, after 4 s',
        '  read       /r/a/1',
        '  log        /r/a.log',
        '  report     runs/report-7.html',
        '  try        python -m pipeline run',
        '',
    ]


def test_a_component_that_was_interrupted_has_not_failed():
    stream = io.StringIO()
    reporter = LineReporter(stream)
    reporter.report(FAILED)
    reporter.finish(130, 'interrupted')
    assert stream.getvalue() == ''


def test_the_documents_list_every_event_and_every_key():
    text = (PROJECT / 'docs' / 'operations.md').read_text()
    rows = dict(re.findall(r'^\| `(\w+)` \| .* \| (.*) \|$', text, flags=re.MULTILINE))
    fields = {event.name: [field.name for field in dataclasses.fields(event)] for event in EVENTS}
    assert {name: re.findall(r'`(\w+)`', rows[name]) for name in fields} == fields


def test_the_options_choose_and_only_a_terminal_gets_a_bar(monkeypatch):
    main, side = os.openpty()
    plain = {'is_quiet': False, 'is_json': False, 'is_verbose': False}
    monkeypatch.setenv('TERM', 'xterm')
    assert choose_mode(side, **plain) == 'bar'
    assert choose_mode(side, **{**plain, 'is_verbose': True}) == 'lines'
    assert choose_mode(side, **{**plain, 'is_quiet': True}) == 'quiet'
    assert choose_mode(side, **{**plain, 'is_json': True}) == 'json'
    monkeypatch.setenv('TERM', 'dumb')
    assert choose_mode(side, **plain) == 'lines'
    os.close(main)
    os.close(side)
    reader, writer = os.pipe()
    monkeypatch.setenv('TERM', 'xterm')
    assert choose_mode(writer, **plain) == 'lines'
    os.close(reader)
    os.close(writer)


def test_an_open_reporter_gets_progress_and_what_the_trainer_logs_and_ticks_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(reporters, 'LINE_INTERVAL_S', 0.0)
    monkeypatch.setattr(LineReporter, 'tick_s', 0.01)
    file = os.open(tmp_path / 'out', os.O_CREAT | os.O_WRONLY)
    with open_reporter('lines', file), track('frozen layers', 7):
        logging.getLogger('trainer').info('cache off')
        deadline = time.monotonic() + 20
        while 'frozen layers: 0 of 7 images' not in (tmp_path / 'out').read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
    os.close(file)
    text = (tmp_path / 'out').read_text()
    assert 'frozen layers: 0 of 7 images' in text
    assert '    cache off\n' in text


def test_an_epochs_log_record_becomes_an_event(tmp_path):
    file = os.open(tmp_path / 'out', os.O_CREAT | os.O_WRONLY)
    with open_reporter('json', file):
        entry = {'phase': 'head', 'epoch': 2, 'loss': 0.5}
        logging.getLogger('trainer').info('head epoch %d', 2, extra={'history_entry': entry, 'epochs': 3})
    os.close(file)
    event = json.loads((tmp_path / 'out').read_text())
    del event['time']
    assert event == {
        'event': 'epoch',
        'text': 'head epoch 2',
        'phase': 'head',
        'epoch': 2,
        'epochs': 3,
        'metrics': {'loss': 0.5},
    }


def fill_pipe(descriptor: int) -> None:
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b'x' * 65536)
    os.set_blocking(descriptor, True)


def test_an_interrupt_waits_only_a_moment_for_a_reader_that_does_not_read(clock):
    reader, writer = os.pipe()
    with os.fdopen(writer, 'w', buffering=1) as stream:
        fill_pipe(writer)
        reporter = JsonReporter(stream, clock)
        ended = threading.Event()
        threading.Thread(target=lambda: (reporter.interrupt(130, 'interrupted'), ended.set()), daemon=True).start()
        assert ended.wait(20)
        os.set_blocking(reader, False)
        while not os.read(reader, 65536).endswith(b'\n'):
            time.sleep(0.01)
    os.close(reader)
