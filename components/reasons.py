"""Reason: one bound that a model kept or broke, in numbers and in words."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """A bound, and the value that was measured.

    metric: such as 'accuracy' or 'latency'.
    slice: a class or a signature; '' for the whole test split or model.
    value: what was measured, in the metric's unit.
    bound: the least or the greatest value that is allowed, as the metric requires.
    count: how many images or requests the value was measured on.
    is_kept: whether the value is within the bound.
    sentence: the same in words, such as 'recall of cat 0.412 < 0.750 on 10'.
    """

    metric: str
    slice: str
    value: float
    bound: float
    count: int
    is_kept: bool
    sentence: str


def list_broken(reasons: Iterable[Reason]) -> list[str]:
    """Lists the sentences of the bounds that were not kept."""
    return [reason.sentence for reason in reasons if not reason.is_kept]
