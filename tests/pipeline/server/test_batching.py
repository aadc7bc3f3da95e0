"""How requests are put together: sizes, waiting, the queue, and what a request that fails costs the others."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from pipeline.server.batching import Batcher, Direct
from pipeline.server.config_files import Batching
from pipeline.server.faults import ServiceError, refuse
from pipeline.server.metrics import Metrics

NEVER = float('inf')


class FakeVersion:
    """A version that returns its inputs, refuses b'broken', and notes the size of each batch."""

    name = 'fake'

    def __init__(self, hold: threading.Event | None = None):
        self.sizes: list[int] = []
        self.started = threading.Event()
        self._hold = hold

    def run(self, signature, inputs):
        self.sizes.append(len(inputs['image']))
        self.started.set()
        if self._hold:
            assert self._hold.wait(10)
        if b'fatal' in inputs['image'].tolist():
            raise MemoryError
        if b'broken' in inputs['image'].tolist():
            raise refuse('Unknown image file format.')
        return {'image': inputs['image']}


def make_batch(*rows: bytes) -> dict[str, np.ndarray]:
    return {'image': np.array(rows, object)}


@pytest.fixture
def make_batcher():
    made = []

    def make(**settings) -> Batcher:
        largest = settings.setdefault('max_batch_size', 100)
        settings = {'num_batch_threads': 1, 'max_execution_batch_size': largest, **settings}
        made.append(Batcher(Batching(**settings), Metrics()))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()


def run_together(batcher: Batcher, version: FakeVersion, batches: list[dict[str, np.ndarray]]) -> list:
    """Sends batches at the same time, and returns each one's rows or its error."""

    def ask(batch):
        try:
            return batcher.run(version, 's', batch, NEVER)['image'].tolist()
        except ServiceError as error:
            return error

    with ThreadPoolExecutor(len(batches)) as threads:
        return list(threads.map(ask, batches))


def test_requests_that_come_together_share_a_batch_and_each_gets_its_own_rows(make_batcher):
    version = FakeVersion()
    batches = [make_batch(b'a'), make_batch(b'b', b'c'), make_batch(b'd')]
    answers = run_together(make_batcher(max_batch_size=4, batch_timeout_s=5), version, batches)
    assert answers == [[b'a'], [b'b', b'c'], [b'd']]
    assert version.sizes == [4], 'a full batch does not wait'


def test_a_request_waits_for_others_only_for_the_timeout(make_batcher):
    began = time.monotonic()
    assert run_together(make_batcher(batch_timeout_s=0.2), FakeVersion(), [make_batch(b'a')]) == [[b'a']]
    assert 0.2 <= time.monotonic() - began < 5


def test_a_batch_is_filled_up_to_an_allowed_size(make_batcher):
    version = FakeVersion()
    batcher = make_batcher(max_batch_size=8, allowed_batch_sizes=(2, 8))
    assert run_together(batcher, version, [make_batch(b'a', b'b', b'c')]) == [[b'a', b'b', b'c']]
    assert version.sizes == [8]


def test_a_large_request_is_split_and_answered_in_order(make_batcher):
    version = FakeVersion()
    rows = [b'%d' % row for row in range(10)]
    batcher = make_batcher(max_batch_size=16, max_execution_batch_size=4, allowed_batch_sizes=(1, 4, 16))
    assert run_together(batcher, version, [make_batch(*rows)]) == [rows]
    assert version.sizes == [4, 4, 4]


def test_a_broken_image_costs_only_its_own_request_the_answer(make_batcher):
    version = FakeVersion()
    batches = [make_batch(b'a'), make_batch(b'b', b'broken', b'c'), make_batch(b'd')]
    first, second, third = run_together(make_batcher(max_batch_size=5, batch_timeout_s=5), version, batches)
    assert (first, third) == ([b'a'], [b'd'])
    assert second.code == grpc.StatusCode.INVALID_ARGUMENT
    assert second.message == 'row 1 of 3: Unknown image file format.'


@pytest.mark.parametrize('place', range(5))
def test_the_row_that_is_refused_is_named(place):
    rows = [b'a'] * 5
    rows[place] = b'broken'
    with pytest.raises(ServiceError, match=f'row {place} of 5: Unknown image file format.'):
        Direct().run(FakeVersion(), 's', make_batch(*rows), NEVER)
    with pytest.raises(ServiceError, match=r'^Unknown image file format\.$'):
        Direct().run(FakeVersion(), 's', make_batch(b'broken'), NEVER)


def test_a_thread_outlives_an_error_that_nobody_expects(make_batcher):
    batcher = make_batcher()
    with pytest.raises(ServiceError) as caught:
        batcher.run(FakeVersion(), 's', make_batch(b'fatal'), NEVER)
    assert caught.value.code == grpc.StatusCode.INTERNAL
    assert batcher.run(FakeVersion(), 's', make_batch(b'a'), NEVER)['image'].tolist() == [b'a']


def test_a_request_larger_than_the_largest_is_refused(make_batcher):
    with pytest.raises(ServiceError, match='Task size 3 is larger than maximum input batch size 2'):
        make_batcher(max_batch_size=2).run(FakeVersion(), 's', make_batch(b'a', b'b', b'c'), NEVER)


def test_a_full_queue_refuses_and_a_late_request_is_not_waited_for(make_batcher):
    hold = threading.Event()
    version = FakeVersion(hold)
    batcher = make_batcher(max_batch_size=1, max_enqueued_batches=1)
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(batcher.run, version, 's', make_batch(b'a'), NEVER)
        assert version.started.wait(10)
        with pytest.raises(ServiceError) as late:
            batcher.run(version, 's', make_batch(b'b'), time.monotonic() + 0.1)
        with pytest.raises(ServiceError) as full:
            batcher.run(version, 's', make_batch(b'c'), NEVER)
        hold.set()
        assert running.result()['image'].tolist() == [b'a']
    assert late.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert full.value.code == grpc.StatusCode.UNAVAILABLE
    assert version.sizes == [1], 'nobody runs what nobody waits for'


def test_only_so_many_requests_run_at_once():
    hold = threading.Event()
    version, runner = FakeVersion(hold), Direct(at_once=1)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(runner.run, version, 's', make_batch(b'a'), NEVER)
        assert version.started.wait(10)
        with pytest.raises(ServiceError) as late:
            runner.run(version, 's', make_batch(b'b'), time.monotonic() + 0.1)
        hold.set()
        assert running.result()['image'].tolist() == [b'a']
    assert late.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
