"""Runs requests on the model: as they come, or several as one batch, which is what makes a small network fast.

Either way a bound on how many run at the same time keeps the memory flat.
"""

import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
import numpy as np
import numpy.typing as npt

from components.errors import to_one_line
from pipeline.server.config_files import Batching
from pipeline.server.faults import ServiceError, refuse
from pipeline.server.metrics import Metrics
from pipeline.server.models import LoadedVersion

Array = npt.NDArray[Any]
Batch = dict[str, Array]

_LATE = ServiceError(grpc.StatusCode.DEADLINE_EXCEEDED, 'Deadline exceeded: the request waited too long for its turn')
_POOL = 'model_server_batch_threads'  # the name of TensorFlow Serving's threads, which its metrics carry


def count_rows(inputs: Batch) -> int | None:
    """Returns the size of the first axis that all inputs share; None if there is none."""
    sizes = {values.shape[0] if values.ndim else None for values in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else None


def _take_rows(inputs: Batch, first: int, last: int) -> Batch:
    return {key: values[first:last] for key, values in inputs.items()}


def run_alone(version: LoadedVersion, signature: str, inputs: Batch) -> Batch:
    """Runs one request, and names the row that the model refuses, if the model itself does not.

    Raises:
      ServiceError: the model refuses the request.
    """
    try:
        return version.run(signature, inputs)
    except ServiceError as error:
        rows = count_rows(inputs)
        if error.code != grpc.StatusCode.INVALID_ARGUMENT or rows is None or rows < 2 or f' of {rows}' in error.message:
            raise
        refused = _find_refused_row(version, signature, inputs, rows)
        if refused is None:
            raise
        raise refuse(f'row {refused[0]} of {rows}: {refused[1]}') from error


def _find_refused_row(version: LoadedVersion, signature: str, inputs: Batch, rows: int) -> tuple[int, str] | None:
    """Returns the first row that the model refuses, counted from 0, and why; None if it refuses none by itself."""
    first, last = 0, rows
    while last - first > 1:
        middle = (first + last) // 2
        try:
            version.run(signature, _take_rows(inputs, first, middle))
        except ServiceError:
            last = middle
        else:
            first = middle
    try:
        version.run(signature, _take_rows(inputs, first, last))
    except ServiceError as error:
        return first, error.message
    return None


class Direct:
    """Runs each request by itself.

    Args:
      at_once: requests that run at the same time; others wait for their turn.
    """

    def __init__(self, at_once: int | None = None):
        self._turns = threading.Semaphore(at_once or os.cpu_count() or 1)

    def run(self, version: LoadedVersion, signature: str, inputs: Batch, deadline: float) -> Batch:
        """See `pipeline.server.service.Runner`."""
        wait_s = deadline - time.monotonic()
        if not self._turns.acquire(timeout=max(0.0, wait_s) if wait_s < threading.TIMEOUT_MAX else None):
            raise _LATE
        try:
            return run_alone(version, signature, inputs)
        finally:
            self._turns.release()

    def close(self) -> None:
        """Does nothing: there are no threads."""


class _Task:
    """A request that waits for a batch."""

    def __init__(self, inputs: Batch, rows: int):
        self.inputs, self.rows = inputs, rows
        self.came = time.monotonic()
        self.outputs: Future[Batch] = Future()


class _Queue:
    """The requests that may share a batch: of one signature of one version, with rows of the same shapes."""

    def __init__(self, version: LoadedVersion, signature: str):
        self.version, self.signature = version, signature
        self.tasks: deque[_Task] = deque()

    @property
    def rows(self) -> int:
        return sum(task.rows for task in self.tasks)


class Batcher:
    """Puts requests that come at the same time into one batch, as TensorFlow Serving's batching session does.

    One thing is different: when a batch fails, each of its requests is run by itself, so that a broken image of one
    client costs no other client its answer.

    Args:
      batching: sizes, threads and timeout.
      metrics: counts.
    """

    def __init__(self, batching: Batching, metrics: Metrics):
        self._batching, self._metrics = batching, metrics
        self._largest = batching.max_execution_batch_size
        self._changed = threading.Condition()  # guards the queues
        self._queues: dict[tuple[object, ...], _Queue] = {}
        self._is_closed = False
        count = batching.num_batch_threads or os.cpu_count() or 1
        self._threads = [threading.Thread(target=self._work, name=f'batch-{place}') for place in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self, version: LoadedVersion, signature: str, inputs: Batch, deadline: float) -> Batch:
        """See `pipeline.server.service.Runner`."""
        rows, most = count_rows(inputs), self._batching.max_batch_size
        if rows is None:
            raise refuse('Batching session Run() input tensors must have equal 0th-dimension size')
        if rows > most:
            raise refuse(f'Task size {rows} is larger than maximum input batch size {most}')
        if rows == 0:
            return run_alone(version, signature, inputs)
        size = self._largest
        parts = [_take_rows(inputs, first, min(first + size, rows)) for first in range(0, rows, size)]
        tasks = [_Task(part, min(size, rows - place * size)) for place, part in enumerate(parts)]
        self._enqueue(version, signature, tasks)
        try:
            outputs = [self._wait(task, deadline) for task in tasks]
        except ServiceError as error:
            if len(tasks) > 1 and error.code == grpc.StatusCode.INVALID_ARGUMENT:
                return run_alone(version, signature, inputs)  # which names the row as the client counts it
            raise
        finally:
            for task in tasks:
                task.outputs.cancel()  # a thread that comes to it later leaves it out
        if len(outputs) == 1:
            return outputs[0]
        return {key: np.concatenate([part[key] for part in outputs]) for key in outputs[0]}

    def _wait(self, task: _Task, deadline: float) -> Batch:
        wait_s = deadline - time.monotonic()
        try:
            return task.outputs.result(max(0.0, wait_s) if wait_s < threading.TIMEOUT_MAX else None)
        except TimeoutError:
            raise _LATE from None

    def close(self) -> None:
        """Ends the threads when they have answered what is queued."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _enqueue(self, version: LoadedVersion, signature: str, tasks: list[_Task]) -> None:
        shapes = tuple((key, values.shape[1:]) for key, values in sorted(tasks[0].inputs.items()))
        key = (version, signature, shapes)
        with self._changed:
            queue = self._queues.setdefault(key, _Queue(version, signature))
            rows = sum(task.rows for task in tasks)
            if queue.rows and queue.rows + rows > self._largest * self._batching.max_enqueued_batches:
                raise ServiceError(
                    grpc.StatusCode.UNAVAILABLE,
                    'The batch scheduling queue to which this task was submitted is full',
                )
            queue.tasks.extend(tasks)
            self._changed.notify_all()

    def _work(self) -> None:
        while (taken := self._take_batch()) is not None:
            queue, tasks = taken
            tasks = [task for task in tasks if task.outputs.set_running_or_notify_cancel()]
            try:
                if tasks:
                    self._run_batch(queue, tasks)
            except Exception as error:  # noqa: BLE001  (a thread that ended would leave every later request unanswered)
                fault = ServiceError(grpc.StatusCode.INTERNAL, to_one_line(error))
                for task in tasks:
                    if not task.outputs.done():
                        task.outputs.set_exception(fault)

    def _take_batch(self) -> tuple[_Queue, list[_Task]] | None:
        """Waits for a queue whose batch is full or whose oldest request has waited long enough; None at the end."""
        with self._changed:
            while True:
                oldest = min(self._queues.items(), key=lambda item: self._find_due(item[1]), default=None)
                if oldest is None:
                    if self._is_closed:
                        return None
                    self._changed.wait()
                    continue
                key, queue = oldest
                wait_s = self._find_due(queue) - time.monotonic()
                if wait_s > 0 and not self._is_closed:
                    self._changed.wait(wait_s)
                    continue
                tasks, rows = [], 0
                while queue.tasks and rows + queue.tasks[0].rows <= self._largest:
                    tasks.append(queue.tasks.popleft())
                    rows += tasks[-1].rows
                if not queue.tasks:
                    del self._queues[key]
                return queue, tasks

    def _find_due(self, queue: _Queue) -> float:
        """Returns when the batch at the head of a queue is to run, on the time.monotonic clock."""
        is_full = queue.rows >= self._largest
        return queue.tasks[0].came + (0.0 if is_full else self._batching.batch_timeout_s)

    def _run_batch(self, queue: _Queue, tasks: list[_Task]) -> None:
        began, rows = time.monotonic(), sum(task.rows for task in tasks)
        for task in tasks:
            self._metrics.queuing_latency.labels(_POOL).observe((began - task.came) * 1e6)
        self._metrics.batch_size.labels(queue.version.name, queue.signature).observe(rows)
        try:
            outputs = queue.version.run(queue.signature, self._merge(tasks, rows))
        except ServiceError:
            self._run_one_by_one(queue, tasks)
            return
        if any(values.ndim == 0 or values.shape[0] < rows for values in outputs.values()):
            self._run_one_by_one(queue, tasks)  # the outputs are not one for each row
            return
        first = 0
        for task in tasks:
            task.outputs.set_result(_take_rows(outputs, first, first + task.rows))
            first += task.rows

    def _merge(self, tasks: list[_Task], rows: int) -> Batch:
        """Joins the requests, and fills the batch up to the next allowed size with copies of its first row."""
        size = next((size for size in self._batching.allowed_batch_sizes if size >= rows), rows)
        merged = {}
        for key in tasks[0].inputs:
            parts = [task.inputs[key] for task in tasks]
            parts += [parts[0][:1]] * (size - rows)
            merged[key] = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return merged

    def _run_one_by_one(self, queue: _Queue, tasks: list[_Task]) -> None:
        for task in tasks:
            try:
                task.outputs.set_result(run_alone(queue.version, queue.signature, task.inputs))
            except ServiceError as error:
                task.outputs.set_exception(error)
