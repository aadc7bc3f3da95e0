"""Progress: what long work is doing, how much of it is done, and how fast it goes.

Code whose work takes more than about three seconds calls `track` and says what it has finished. It does not know who
listens: a local run shows a bar, a line every 30 seconds or events in JSON (pipeline/reporter.py); in a container,
where nobody has set a listener, a line is logged every 30 seconds.
"""

import collections
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

LINE_INTERVAL_S = 30.0  # seconds between two lines where lines are written
_SAMPLE_S = 0.5  # least time between two points from which the speed is computed, so that few are kept
_log = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How far a piece of work has come."""

    what: str
    """What is being done, such as 'frozen layers'; begins with a small letter, and is the same for the whole work."""
    done: int
    """Units that are finished."""
    total: int | None
    """Units in all; None if that is not known."""
    unit: str
    """What is counted, in the plural, such as 'images'."""
    seconds: float
    """Seconds since the work began."""
    is_finished: bool = False
    """Whether this is the last report, because the work has ended or failed."""
    speed: float | None = None
    """Units per second lately; None stands for the average since the work began."""
    age: float = 0.0
    """Seconds since this was reported, which are not part of the time left any more."""

    @property
    def per_second(self) -> float:
        """Units per second; 0 while nothing is finished."""
        if self.speed is not None:
            return self.speed
        return self.done / self.seconds if self.done and self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at this speed; None while that cannot be said, and when the work has ended."""
        if self.total is None or not self.per_second or self.is_finished:
            return None
        return max(0.0, (self.total - self.done) / self.per_second - self.age)

    def to_sentence(self) -> str:
        """Says it in a line: 'frozen layers: 3,200 of 10,000 images, 34.8 images/s, 195 s left'."""
        if self.total is None and not self.done:
            return f'{self.what}: {self.seconds:.0f} s so far'
        parts = [f'{self.what}: {self._describe_amount()}']
        parts.append(f'{_scale(self.per_second, self.unit)}/s' if self.per_second else f'{self.seconds:.0f} s so far')
        if self.seconds_left is not None:
            parts.append(f'{self.seconds_left:.0f} s left')
        return ', '.join(parts)

    def _describe_amount(self) -> str:
        if self.unit == 'bytes':
            done = f'{self.done / 1e6:,.1f}'
            return f'{done} MB' if self.total is None else f'{done} of {self.total / 1e6:,.1f} MB'
        return f'{self.done:,} {self.unit}' if self.total is None else f'{self.done:,} of {self.total:,} {self.unit}'


def _scale(per_second: float, unit: str) -> str:
    return f'{per_second / 1e6:,.1f} MB' if unit == 'bytes' else f'{per_second:,.1f} {unit}'


Listener = Callable[[Progress], None]


class _LineLogger:
    """The listener while no other is set: it logs a line every LINE_INTERVAL_S seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= LINE_INTERVAL_S:
            self._last = now
            _log.info('%s', progress.to_sentence())


class _Work:
    """What `track` keeps of one piece of work; its methods may be called from any thread."""

    def __init__(self, what: str, total: int | None, unit: str, done: int):
        self._what, self._total, self._unit = what, total, unit
        self._begin, self._first, self._done = time.monotonic(), done, done
        self._lock = threading.Lock()
        self._points: collections.deque[tuple[float, int]] = collections.deque()

    def advance(self, units: int) -> None:
        """Adds units that are finished, and reports."""
        with self._lock:
            self._done += units
            seconds = time.monotonic() - self._begin
            if not self._points or seconds - self._points[-1][0] >= _SAMPLE_S:
                self._points.append((seconds, self._done))
        self.report()

    def report(self, *, is_finished: bool = False) -> None:
        """Reports to the listener how far the work has come."""
        with self._lock:
            seconds = time.monotonic() - self._begin
            speed = self._measure_average(seconds) if is_finished else self._measure_speed(seconds)
            report = Progress(self._what, self._done, self._total, self._unit, seconds, is_finished, speed)
        _listener(report)

    def _measure_average(self, seconds: float) -> float:
        return (self._done - self._first) / seconds if seconds else 0.0

    def _measure_speed(self, seconds: float) -> float:
        """The speed over the later half of the time so far.

        So a slow start, such as the tracing of a graph, is soon forgotten, and a forecast follows a change of speed.
        """
        while len(self._points) > 1 and self._points[1][0] <= seconds / 2:
            self._points.popleft()
        if not self._points or self._done <= self._points[0][1]:
            return self._measure_average(seconds)
        begin, done = self._points[0]
        return (self._done - done) / (seconds - begin) if seconds > begin else 0.0


_listener: Listener = _LineLogger()
_works: dict[str, _Work] = {}  # what is tracked now in this process


@contextlib.contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Sends the reports of the work within the context to `listener`, which is called often and must return at once."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@contextlib.contextmanager
def track(what: str, total: int | None = None, unit: str = 'images', done: int = 0) -> Iterator[Callable[[int], None]]:
    """Reports the progress of the work within the context.

    Args:
      what: What is done; see `Progress.what`.
      total: Units in all; None if that is not known.
      unit: What is counted, in the plural.
      done: Units that an earlier attempt has finished.

    Yields:
      A function to call with the number of units that were finished since the last call, from any thread.
    """
    work = _Work(what, total, unit, done)
    _works[what] = work
    work.report()
    try:
        yield work.advance
    finally:
        _works.pop(what, None)
        work.report(is_finished=True)


def advance_tracked(what: str, units: int) -> None:
    """Says that units of the work called `what` are finished, where the function that `track` yields cannot be had.

    Beam pickles the functions that it runs. In another process than the one that tracks the work nothing is reported.
    """
    if work := _works.get(what):
        work.advance(units)
