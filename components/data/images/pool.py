"""Converts many files at the same time, in a process for each core.

Called by `components.data.images.dataset`. The processes are started anew, not forked: a fork of a process with threads
may hang. They end after the picture that they are at when the work is interrupted, so that nobody writes any more when
the folder is removed.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from pathlib import Path

from components.data.images.convert import Converted, convert_image
from components.errors import DataError

_CHUNK_FILES = 16  # that a process is given at a time
_stop: Event | None = None  # in a worker: set when the work is interrupted


def _begin_worker(stop: Event) -> None:
    """Prepares a process: Ctrl-C reaches it too, but it is for the parent to say when it ends."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _convert_chunk(paths: Sequence[Path], shorter: int) -> list[Converted]:
    return [convert_image(path, shorter) for path in paths if _stop is None or not _stop.is_set()]


@contextlib.contextmanager
def _open_executor() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context('spawn')
    stop = context.Event()
    workers = len(os.sched_getaffinity(0))
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(stop,))
    try:
        yield executor
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


def convert_files(paths: Sequence[Path], shorter: int) -> Iterator[tuple[int, Converted]]:
    """Yields the position of each file and what became of it, in the order in which they are finished.

    Args:
      paths: the files.
      shorter: see `convert_image`.

    Raises:
      DataError: a process was ended from outside, which is most often for want of memory.
    """
    with _open_executor() as executor:
        starts: dict[Future[list[Converted]], int] = {
            executor.submit(_convert_chunk, paths[start : start + _CHUNK_FILES], shorter): start
            for start in range(0, len(paths), _CHUNK_FILES)
        }
        try:
            for future in as_completed(starts):
                yield from enumerate(future.result(), starts.pop(future))
        except BrokenProcessPool as error:
            raise DataError(
                'A process that converts pictures was ended from outside, most often because memory ran out; '
                'free some, or use fewer CPUs (taskset -c 0), and run the same command again.'
            ) from error
