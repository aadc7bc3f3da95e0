"""Progress reports reach the listener, and say how long the rest takes."""

import logging
import threading

import pytest

from components import progress
from components.progress import Progress, listen, track


def test_reports_begin_at_zero_and_end_as_finished():
    seen = []
    with listen(seen.append), track('frozen layers', 10) as advance:
        advance(4)
        advance(6)
    assert [(report.done, report.is_finished) for report in seen] == [(0, False), (4, False), (10, False), (10, True)]
    assert {(report.what, report.total, report.unit) for report in seen} == {('frozen layers', 10, 'images')}


def test_failed_work_is_reported_as_ended_too():
    seen = []
    with pytest.raises(OSError, match='disk'), listen(seen.append), track('download', None, 'bytes'):
        raise OSError('disk')
    assert seen[-1].is_finished


def test_the_listener_before_is_set_again():
    outer, inner = [], []
    with listen(outer.append):
        with listen(inner.append), track('inner', 1):
            pass
        with track('outer', 1):
            pass
    assert {report.what for report in outer} == {'outer'}
    assert {report.what for report in inner} == {'inner'}


def test_the_rest_takes_as_long_as_the_speed_so_far_says():
    report = Progress('frozen layers', 2500, 10_000, 'images', 50.0)
    assert report.seconds_left == 150
    assert report.to_sentence() == 'frozen layers: 2,500 of 10,000 images, 50.0 images/s, 150 s left'


def test_before_anything_is_finished_no_time_is_named():
    assert Progress('imports', 0, None, 'modules', 3.0).seconds_left is None
    assert Progress('imports', 0, None, 'modules', 3.0).to_sentence() == 'imports: 3 s so far'


def test_without_a_listener_a_line_is_logged_every_thirty_seconds(monkeypatch, caplog):
    now = 0.0
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now)
    with caplog.at_level(logging.INFO), listen(progress._LineLogger()), track('frozen layers', 100) as advance:
        for now in (10.0, 29.0, 40.0, 60.0):  # noqa: B007  (the clock reads it)
            advance(10)
    assert [record.getMessage() for record in caplog.records] == [
        'frozen layers: 30 of 100 images, 0.7 images/s, 105 s left'
    ]


@pytest.fixture
def clock(monkeypatch):
    """Replaces the clock; `clock.append(seconds)` sets it."""
    times = [0.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: times[-1])
    return times


def test_the_forecast_forgets_a_slow_start_and_follows_a_change_of_speed(clock):
    seen = []
    with listen(seen.append), track('frozen layers', 10_000) as advance:
        for clock_now, units in ((20, 10), (21, 100), (22, 100), (40, 1800)):
            clock.append(clock_now)
            advance(units)
        assert seen[2].per_second == 100  # and not 110 images in 21 s
        assert seen[-1].seconds_left == pytest.approx((10_000 - 2010) / 100)
        for clock_now in (60, 80, 100, 120):
            clock.append(clock_now)
            advance(200)
        assert seen[-1].per_second == pytest.approx(10)
    assert seen[-1].per_second == pytest.approx(2810 / 120), 'the last report gives the average'


def test_what_an_earlier_attempt_has_finished_does_not_count_as_speed(clock):
    seen = []
    with listen(seen.append), track('download', 100, 'bytes', done=80) as advance:
        assert (seen[0].done, seen[0].seconds_left) == (80, None)
        clock.append(5)
        advance(10)
    assert seen[1].seconds_left == 5


def test_bytes_are_shown_as_megabytes():
    report = Progress('download', 34_100_000, 170_052_171, 'bytes', 10.0)
    assert report.to_sentence() == 'download: 34.1 of 170.1 MB, 3.4 MB/s, 40 s left'


def test_work_is_advanced_by_its_name_while_it_is_tracked_and_not_after():
    seen = []
    with listen(seen.append):
        with track('records', 2, 'records'):
            progress.advance_tracked('records', 2)
        progress.advance_tracked('records', 1)
    assert [report.done for report in seen] == [0, 2, 2]


def test_threads_that_advance_the_same_work_lose_nothing():
    seen = []
    with listen(seen.append), track('records', None) as advance:
        threads = [threading.Thread(target=lambda: [advance(1) for _ in range(2000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen[-1].done == 8000
