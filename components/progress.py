"""Progress: what long work is doing, how much of it is done, and how fast it goes.

Code whose work takes more than about three seconds calls `track` and says what it has finished. It does not know who
listens: a local run shows a bar, a line every 30 seconds or events in JSON (pipeline/console.py); in a container, where
nobody has set a listener, a line is logged every 30 seconds.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

LINE_INTERVAL_S = 30.0  # seconds between two lines where lines are written
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

    @property
    def per_second(self) -> float:
        """Units per second since the work began; 0 while nothing is finished."""
        return self.done / self.seconds if self.done and self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at the speed so far; None while that cannot be said."""
        return (self.total - self.done) / self.per_second if self.total is not None and self.per_second else None

    def to_sentence(self) -> str:
        """Says it in a line: 'frozen layers: 3,200 of 10,000 images, 34.8 images/s, 195 s left'."""
        amount = f'{self.done:,}' if self.total is None else f'{self.done:,} of {self.total:,}'
        parts = [f'{self.what}: {amount} {self.unit}']
        if self.done:
            parts.append(f'{self.per_second:.1f} {self.unit}/s')
        if self.seconds_left is not None and not self.is_finished:
            parts.append(f'{self.seconds_left:.0f} s left')
        return ', '.join(parts)


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


_listener: Listener = _LineLogger()


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
def track(what: str, total: int | None, unit: str = 'images') -> Iterator[Callable[[int], None]]:
    """Reports the progress of the work within the context.

    Args:
      what: What is done; see `Progress.what`.
      total: Units in all; None if that is not known.
      unit: What is counted, in the plural.

    Yields:
      A function to call with the number of units that were finished since the last call.
    """
    begin, done = time.monotonic(), 0

    def report(*, is_finished: bool = False) -> None:
        _listener(Progress(what, done, total, unit, time.monotonic() - begin, is_finished))

    def advance(units: int) -> None:
        nonlocal done
        done += units
        report()

    report()
    try:
        yield advance
    finally:
        report(is_finished=True)
