"""Reporters show what a command does while it runs: lines for a pipe, a bar on a terminal, JSON, or only the end.

`open_reporter` makes the one that the command line asks for. All code that reports progress (components/progress.py)
and all that the trainer logs reaches it, and a thread of its own wakes it up, so that nothing is ever silent for long.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal, TextIO

from components.progress import LINE_INTERVAL_S, Progress, listen
from pipeline.activity import Activity, make_event
from pipeline.console import measure_width, print_line, shorten_paths
from pipeline.events import (
    ComponentFailed,
    ComponentFinished,
    EpochFinished,
    Event,
    Finished,
    Judged,
    Noted,
    Started,
    Summarized,
    to_json,
)
from pipeline.interruption import EXIT_INTERRUPTED
from pipeline.progress_bar import make_bar

Mode = Literal['lines', 'bar', 'quiet', 'json']
_NOTE_COLUMN = 28  # where a component's line begins to say what it did
_TOLD_BY_THE_END = (0, 3)  # exit codes whose message belongs to the result; the others' is an error, on standard error
_ROOM = 3  # columns right of the bar, in which terminals show ^C; the bar's line must not wrap then
_BAR_AFTER_S = 0.5  # work that takes less gets no bar, which would only flicker
JSON_INTERVAL_S = 1.0  # least time between two events of the same work; work that takes less has none
_END_S = 0.3  # how long an interrupt waits for the last words


class Reporter:
    """The base: follows what goes on, and shows nothing. Its methods may be called from any thread.

    Args:
      stream: where it is shown.
      clock: gives seconds.
    """

    tick_s = 1.0  # seconds between two ticks

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self._stream, self._clock, self._begin = stream, clock, clock()
        self._lock = threading.RLock()
        self._activity = Activity(clock)
        self._is_finished = False

    def report(self, event: Event) -> None:
        """Shows an event. After Finished nothing is shown any more."""
        with self._lock:
            if not self._is_finished:
                self._is_finished = isinstance(event, Finished)
                self._show(event)
                self._activity.follow(event)

    def hear(self, progress: Progress) -> None:
        """Hears how far work has come; is called often."""
        with self._lock:
            if not self._is_finished:
                self._activity.hear(progress)
                self._show_progress(progress)

    def tick(self) -> None:
        """Shows what goes on, if it is time to."""
        with self._lock:
            if not self._is_finished:
                self._show_activity()

    def note(self, text: str) -> None:
        """Shows something worth knowing, in words."""
        self.report(Noted(component=self._activity.component, text=text))

    def finish(self, exit_code: int, message: str) -> None:
        """Shows how the command ended, if that has not been shown yet.

        Args:
          exit_code: the exit code.
          message: what came of it.
        """
        self.report(Finished(exit_code=exit_code, message=message, seconds=self._clock() - self._begin))

    def interrupt(self, exit_code: int, message: str) -> None:
        """Does as `finish`, but waits only a moment: the process is about to end, whatever its other threads do."""
        end = threading.Thread(target=self.finish, args=(exit_code, message), daemon=True)
        end.start()
        end.join(_END_S)

    @contextlib.contextmanager
    def step_aside(self) -> Iterator[None]:
        """Leaves the terminal to a command that prints its answer within the context."""
        with self._lock:
            self._clear()
            yield

    def _clear(self) -> None:
        """Removes what would be in the way of a line."""

    def _show(self, event: Event) -> None:
        """Shows an event."""

    def _show_progress(self, progress: Progress) -> None:
        """Shows a report of progress."""

    def _show_activity(self) -> None:
        """Shows what goes on at the moment."""


class QuietReporter(Reporter):
    """Prints only the closing lines."""

    _failed: ComponentFailed | None = None
    _next_steps: tuple[str, ...] = ()

    def _show(self, event: Event) -> None:
        match event:
            case ComponentFailed():
                self._failed = event
            case Summarized():
                counts = f'{event.components} components, {event.reused} reused, {event.seconds:.0f} s in all'
                self._print(counts)
                for name, path in event.paths.items():
                    self._print(f'  {name:<10} {path}', hang=' ' * 13)
            case Judged():
                for line in event.lines:
                    self._print(f'  {line}')
                self._next_steps = event.next_steps
            case Finished() if event.exit_code in _TOLD_BY_THE_END:
                self._print(event.message)
                for command in self._next_steps:
                    self._print_command('next', command)
            case Finished() if self._failed and event.exit_code != EXIT_INTERRUPTED:
                self._print_failure(self._failed)

    def _print_failure(self, failed: ComponentFailed) -> None:
        """Prints where a run failed; the error's message, which says why, follows on standard error."""
        self._print(f'failed at {failed.component}, after {failed.seconds:.0f} s')
        for folder in failed.inputs:
            self._print(f'  read       {folder}', hang=' ' * 13)
        self._print(f'  log        {failed.log}', hang=' ' * 13)
        if failed.report:
            self._print(f'  report     {failed.report}', hang=' ' * 13)
        self._print_command('try', failed.command)

    def _print_command(self, name: str, command: str) -> None:
        """Prints a command in one line, however wide the terminal is, so that it can be copied."""
        print(f'  {name:<10} {shorten_paths(command)}', file=self._stream)

    def _print(self, text: str, hang: str = '    ') -> None:
        print_line(text, self._stream, hang)


class LineReporter(QuietReporter):
    """Prints a line for each component, note and epoch, and after LINE_INTERVAL_S without a line what goes on."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        super().__init__(stream, clock)
        self._last = clock()

    def _show(self, event: Event) -> None:
        match event:
            case Started(pipeline=str()):
                self._print(f'Pipeline {event.pipeline} in {event.root}')
            case Noted() | EpochFinished():
                self._print(f'    {event.text}', hang=' ' * 8)
            case ComponentFinished():
                note = f'reused: {event.note}' if event.is_reused else event.note
                self._print(f'{event.component:<17} {event.seconds:6.1f} s  {note}', hang=' ' * _NOTE_COLUMN)
        super()._show(event)

    def _show_activity(self) -> None:
        sentence = self._activity.to_sentence()
        if sentence and self._clock() - self._last >= LINE_INTERVAL_S:
            self._print(f'    {sentence}', hang=' ' * 8)

    def _print(self, text: str, hang: str = '    ') -> None:
        self._last = self._clock()
        super()._print(text, hang)


class BarReporter(LineReporter):
    """Prints the same lines, and below them a bar that is drawn again and again, and is gone before the next line."""

    tick_s = 0.2

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        super().__init__(stream, clock)
        self._is_ascii = not (stream.encoding or '').lower().startswith('utf')
        self._is_drawn = False

    def _show(self, event: Event) -> None:
        self._clear()  # also where nothing is printed: an error's message may follow on standard error
        super()._show(event)

    def _show_progress(self, progress: Progress) -> None:
        if progress.is_finished:
            self._clear()

    def _show_activity(self) -> None:
        if self._activity.measure_seconds() < _BAR_AFTER_S:
            return
        work, width = self._activity.get_work(), (measure_width(self._stream) or 80) - _ROOM
        sentence = self._activity.to_sentence() or ''
        text = make_bar(work, self._activity.list_outer(), width, is_ascii=self._is_ascii) if work else sentence
        if text:
            self._is_drawn = True
            self._write(f'\r{text[:width]}\x1b[K')

    def _print(self, text: str, hang: str = '    ') -> None:
        self._clear()
        super()._print(text, hang)

    def _clear(self) -> None:
        if self._is_drawn:
            self._is_drawn = False
            self._write('\r\x1b[K')  # to the begin of the line, and erase it

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class JsonReporter(Reporter):
    """Writes each event as a JSON object on a line of its own."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        super().__init__(stream, clock)
        self._last = clock()
        self._last_of_work: dict[str, float] = {}

    def _show(self, event: Event) -> None:
        self._last = self._clock()
        print(to_json(event), file=self._stream, flush=True)

    def _show_progress(self, progress: Progress) -> None:
        now = self._clock()
        last = self._last_of_work.setdefault(progress.what, now)
        if now - last >= JSON_INTERVAL_S or (progress.is_finished and progress.seconds >= JSON_INTERVAL_S):
            self._last_of_work[progress.what] = now
            self._show(make_event(self._activity.component, progress))
        if progress.is_finished:
            del self._last_of_work[progress.what]

    def _show_activity(self) -> None:
        event = self._activity.to_event()
        if event and self._clock() - self._last >= LINE_INTERVAL_S:
            self._show(event)


class _LogHandler(logging.Handler):
    """Turns what the trainer logs into events. The record of an epoch has `history_entry` and `epochs`."""

    def __init__(self, reporter: Reporter):
        super().__init__(logging.INFO)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        metrics = dict(getattr(record, 'history_entry', {}))
        if not metrics:
            self._reporter.note(record.getMessage())
            return
        phase, epoch, epochs = metrics.pop('phase'), metrics.pop('epoch'), vars(record)['epochs']
        text = record.getMessage()
        self._reporter.report(EpochFinished(text=text, phase=phase, epoch=epoch, epochs=epochs, metrics=metrics))


_REPORTERS: dict[Mode, type[Reporter]] = {
    'lines': LineReporter,
    'bar': BarReporter,
    'quiet': QuietReporter,
    'json': JsonReporter,
}


def choose_mode(descriptor: int, *, is_quiet: bool, is_json: bool, is_verbose: bool) -> Mode:
    """Chooses how to show what goes on.

    Args:
      descriptor: where it is shown.
      is_quiet, is_json, is_verbose: the options. The libraries' output would tear a bar apart, so it gets lines.
    """
    if is_quiet or is_json:
        return 'quiet' if is_quiet else 'json'
    has_bar = os.isatty(descriptor) and os.environ.get('TERM') != 'dumb' and not is_verbose
    return 'bar' if has_bar else 'lines'


def _tick(reporter: Reporter, stop: threading.Event) -> None:
    while not stop.wait(reporter.tick_s):
        with contextlib.suppress(OSError):  # such as of a pipe that nobody reads any more; the next line will say so
            reporter.tick()


@contextlib.contextmanager
def open_reporter(mode: Mode, descriptor: int) -> Iterator[Reporter]:
    """Makes a reporter, which all progress and all of the trainer's log messages within the context reach.

    Args:
      mode: how it shows them.
      descriptor: where, as a file descriptor; it may lead elsewhere later.
    """
    stream = os.fdopen(os.dup(descriptor), 'w', buffering=1)
    reporter = _REPORTERS[mode](stream)
    stop, handler, logger = threading.Event(), _LogHandler(reporter), logging.getLogger('trainer')
    ticker = threading.Thread(target=_tick, args=(reporter, stop), daemon=True)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    ticker.start()
    try:
        with listen(reporter.hear):
            yield reporter
    finally:
        stop.set()
        ticker.join(_END_S)
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            stream.close()
