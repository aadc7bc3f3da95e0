"""GateConfig, apart from the gate so that the command line can list it without importing TFMA."""

from dataclasses import dataclass
from typing import Literal, get_args

Policy = Literal['not_worse', 'better', 'ignore']


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The bounds a model must keep on the test split to be pushed."""

    accuracy: float = 0.90
    """Least accuracy on the whole test split, 0-1."""
    recall: float = 0.75
    """Least share of each class's test images that are recognised, 0-1: a good mean can hide a class that is lost."""
    calibration_error: float = 0.15
    """Greatest expected calibration error, 0-1: by how much the model's confidence misses its accuracy."""
    baseline: Policy = 'not_worse'
    """What its accuracy must be against that of the serving model, beyond chance."""
    confidence: float = 0.95
    """Of the interval of that change, 0-1: what lies outside it is beyond chance."""

    def __post_init__(self):
        for name in ('accuracy', 'recall', 'calibration_error'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'gate.{name} must be 0 to 1. Received: {getattr(self, name)!r}')
        if self.baseline not in get_args(Policy):
            choices = ', '.join(get_args(Policy))
            raise ValueError(f'gate.baseline must be one of {choices}. Received: {self.baseline!r}')
        if not 0 < self.confidence < 1:
            raise ValueError(f'gate.confidence must be between 0 and 1. Received: {self.confidence!r}')
