"""What a command is doing at the moment: the component that runs, and the work that it reports."""

from collections.abc import Callable
from typing import NamedTuple

from components.progress import Progress
from pipeline.events import ComponentFinished, ComponentStarted, Event, Worked


class _Heard(NamedTuple):
    progress: Progress
    at: float  # on the clock


class Activity:
    """Follows events and reports of progress. Work may be within other work, as an epoch is within the training.

    Args:
      clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float]):
        self.component: str | None = None
        self._clock = clock
        self._begin = clock()  # of the component
        self._works: dict[str, _Heard] = {}  # the innermost is the last

    def follow(self, event: Event) -> None:
        """Remembers which component runs."""
        if isinstance(event, ComponentStarted | ComponentFinished):
            self.component = event.component if isinstance(event, ComponentStarted) else None
            self._begin = self._clock()
            self._works.clear()  # work that failed may not have been reported as ended

    def hear(self, progress: Progress) -> None:
        """Remembers how far work has come, and forgets work that is finished."""
        if progress.is_finished:
            self._works.pop(progress.what, None)
        else:
            self._works[progress.what] = _Heard(progress, self._clock())

    def get_work(self) -> Progress | None:
        """Returns the innermost work as it is by now; None if none is reported."""
        return self._list_works()[-1] if self._works else None

    def list_outer(self) -> list[Progress]:
        """Returns the work that the innermost one is part of, if it has a forecast."""
        return [progress for progress in self._list_works()[:-1] if progress.seconds_left is not None]

    def _list_works(self) -> list[Progress]:
        """Lists all work as it is by now: time has passed since it was heard of."""
        ages = [(heard.progress, self._clock() - heard.at) for heard in self._works.values()]
        return [progress._replace(seconds=progress.seconds + age, age=age) for progress, age in ages]

    def measure_seconds(self) -> float:
        """Returns how long the innermost work has taken, or else the component, or what is between components."""
        work = self.get_work()
        return work.seconds if work else self._clock() - self._begin

    def to_sentence(self) -> str | None:
        """Says in a line what goes on; None if there is nothing."""
        work = self.get_work()
        if work is None:
            return f'{self.component}: {self.measure_seconds():.0f} s so far' if self.component else None
        outer = ''.join(f' ({each.what}: {each.seconds_left:.0f} s left)' for each in self.list_outer())
        return f'{work.to_sentence()}{outer}'

    def to_event(self) -> Worked | None:
        """Says it as an event; None if there is nothing."""
        work = self.get_work()
        if work is not None:
            return make_event(self.component, work)
        if self.component is None:
            return None
        unknown = dict.fromkeys(('what', 'done', 'total', 'unit', 'per_second', 'seconds_left'))
        return Worked(component=self.component, seconds=self.measure_seconds(), is_finished=False, **unknown)


def make_event(component: str | None, progress: Progress) -> Worked:
    """Makes the event of a report.

    Args:
      component: the component that works.
      progress: its report.
    """
    return Worked(
        component=component,
        what=progress.what,
        done=progress.done,
        total=progress.total,
        unit=progress.unit,
        seconds=progress.seconds,
        per_second=progress.per_second or None,
        seconds_left=progress.seconds_left,
        is_finished=progress.is_finished,
    )
