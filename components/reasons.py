"""Reason: why a model was blessed or refused, one bound each, in numbers and in words."""

from collections.abc import Iterable
from typing import NamedTuple


class Reason(NamedTuple):
    """A bound and what was found.

    metric: such as 'accuracy' or 'latency'.
    slice: a class or a signature; '' for the whole test split or model.
    value: what was found.
    bound: which the value must not pass.
    count: images or requests that were asked.
    is_kept: whether the bound is kept.
    sentence: all of it in words, such as 'recall of cat 0.412 < 0.750 on 10'.
    """

    metric: str
    slice: str
    value: float
    bound: float
    count: int
    is_kept: bool
    sentence: str


def list_broken(reasons: Iterable[Reason]) -> list[str]:
    """A sentence for each bound that was not kept."""
    return [reason.sentence for reason in reasons if not reason.is_kept]
