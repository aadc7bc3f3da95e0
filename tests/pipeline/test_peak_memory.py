"""The peak memory since a moment."""

from pipeline.peak_memory import read_peak_mb, reset_peak


def test_the_peak_is_that_since_the_last_reset():
    reset_peak()
    before = read_peak_mb()
    assert len(b'x' * 200_000_000) == 200_000_000
    high = read_peak_mb()
    reset_peak()
    after = read_peak_mb()
    assert high - before > 150
    assert high - after > 150
