"""Shares of images with their intervals."""

from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """A share of images, 0-1, with its 95% interval by Wilson's score (1927); without images all three are None."""

    value: float | None
    low: float | None
    high: float | None
    right: int
    count: int


def measure_share(right: int, count: int) -> Share:
    """Computes a share with its interval."""
    from scipy import stats

    if not count:
        return Share(None, None, None, right, count)
    interval = stats.binomtest(right, count).proportion_ci(CONFIDENCE, method='wilson')
    return Share(right / count, float(interval.low), float(interval.high), right, count)


def format_share(share: Share, digits: int = 3) -> str:
    """Shows a share with its interval and its number of images, such as '0.870 (0.854 to 0.884) on 2,000'."""
    if share.value is None:
        return 'no images'
    return f'{share.value:.{digits}f} ({share.low:.{digits}f} to {share.high:.{digits}f}) on {share.count:,}'
