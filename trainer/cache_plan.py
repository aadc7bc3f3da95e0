"""Decides where the trunk's outputs are cached: in memory, on disk, or not at all.

The decision (`choose_cache`) is a function of measured figures and nothing else. It is kept apart from what measures
them (`plan_cache`).
"""

import shutil
from collections.abc import Callable
from typing import NamedTuple

from components.errors import TrainingError
from trainer.cache import CacheKind
from trainer.free_memory import measure_free_memory

_USABLE_SHARE = 0.75  # of the memory or disk space that is free; the rest is left to the training and to others
_GB = 1e9


class CachePlan(NamedTuple):
    """Where the trunk's outputs are cached, and why there."""

    kind: CacheKind
    reason: str


class CacheNeed(NamedTuple):
    """What a training phase would write to a cache, and read from it."""

    rows: int
    """Rows that the cache would hold: each is computed and written once."""
    row_bytes: int
    """Size of a row in bytes."""
    epochs: int
    """Passes over the images."""
    rows_per_epoch: int
    """Rows that each of them reads, or computes if nothing is cached."""

    @property
    def total_bytes(self) -> int:
        """Size of the whole cache in bytes."""
        return self.rows * self.row_bytes


class FreeSpace(NamedTuple):
    """What is free, in bytes."""

    memory: int
    disk: int


class RowSeconds(NamedTuple):
    """How long one row takes, in seconds."""

    compute: float
    """To decode and resize an image and to run the frozen layers on it."""
    read: float
    """To read the row from a cache on disk."""


def choose_cache(need: CacheNeed, free: FreeSpace, seconds: RowSeconds | None) -> CachePlan:
    """Decides where the rows are cached.

    In memory, if they fit. Nothing needs to be timed for this: a computed row has to pass through memory as well, so
    reading it there never takes longer than computing it. Else on disk, if they fit there and all epochs together take
    less time with the cache than without. Else not at all.

    Args:
      need: What the phase would cache.
      free: What is free; a quarter of it is not used.
      seconds: How long a row takes. None if that is not known; then what fits on the disk goes there.
    """
    size, memory, disk = (f'{amount / _GB:.2f} GB' for amount in (need.total_bytes, *free))
    if need.total_bytes <= _USABLE_SHARE * free.memory:
        return CachePlan('memory', f'{size} fit in memory, of which {memory} are free')
    if need.total_bytes > _USABLE_SHARE * free.disk:
        return CachePlan(
            'off',
            f'{size} fit neither in memory, of which {memory} are free, nor on the disk, of which {disk} are free',
        )
    too_large = f'{size} do not fit in memory, of which {memory} are free'
    if seconds is None:
        return CachePlan('disk', too_large)
    reads = need.epochs * need.rows_per_epoch
    with_cache, without = need.rows * seconds.compute + reads * seconds.read, reads * seconds.compute
    figures = (
        f'{too_large}; the frozen layers take {1000 * seconds.compute:.2f} ms an image and reading their outputs from '
        f'disk {1000 * seconds.read:.2f} ms, which makes {with_cache:.0f} s with a cache on disk and {without:.0f} s '
        f'without in {need.epochs} epochs'
    )
    return CachePlan('disk' if with_cache < without else 'off', figures)


def plan_cache(wanted: str, need: CacheNeed, folder: str, measure: Callable[[], RowSeconds] | None) -> CachePlan:
    """Decides where the trunk's outputs are cached, and measures what the decision depends on.

    Args:
      wanted: The setting `trainer.cache`: 'auto', 'memory' or 'disk'.
      need: What the phase would cache.
      folder: Local folder in which a cache on disk would be created.
      measure: Measures how long a row takes; called only if the decision depends on it. None if it must not.

    Raises:
      TrainingError: `wanted` is 'memory' or 'disk', and there is not enough room.
    """
    free = FreeSpace(measure_free_memory(), shutil.disk_usage(folder).free)
    size = f'{need.total_bytes / _GB:.2f} GB'
    if wanted == 'memory':
        if need.total_bytes > free.memory:
            raise TrainingError(
                f'trainer.cache=memory needs {size} of memory, and only {free.memory / _GB:.2f} GB are free; '
                'set trainer.cache=disk or off.'
            )
        return CachePlan('memory', f'trainer.cache=memory, {size}')
    if wanted == 'disk':
        if need.total_bytes > free.disk:
            raise TrainingError(
                f'trainer.cache=disk needs {size}, and only {free.disk / _GB:.2f} GB are free in {folder}; free some '
                'space, or set trainer.cache=off.'
            )
        return CachePlan('disk', f'trainer.cache=disk, {size}')
    plan = choose_cache(need, free, None)
    return plan if plan.kind != 'disk' or measure is None else choose_cache(need, free, measure())
