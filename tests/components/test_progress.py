"""Progress reports reach the listener, and say how long the rest takes."""

import logging

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
    assert Progress('imports', 0, None, 'modules', 3.0).to_sentence() == 'imports: 0 modules'


def test_without_a_listener_a_line_is_logged_every_thirty_seconds(monkeypatch, caplog):
    now = 0.0
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now)
    with caplog.at_level(logging.INFO), listen(progress._LineLogger()), track('frozen layers', 100) as advance:
        for now in (10.0, 29.0, 40.0, 60.0):  # noqa: B007  (the clock reads it)
            advance(10)
    assert [record.getMessage() for record in caplog.records] == [
        'frozen layers: 30 of 100 images, 0.8 images/s, 93 s left'
    ]
