"""GateConfig, in a file of its own so that the command line can list it without importing TFMA."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from components.settings import Settings

Policy = Literal['not_worse', 'better', 'ignore']
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class GateConfig(Settings):
    """The bounds that a model must keep on the test split to be pushed."""

    SECTION: ClassVar[str] = 'gate'

    accuracy: Share = 0.90
    """Least accuracy on the whole test split, 0 to 1."""
    recall: Share = 0.75
    """Least recall of each class on the test split, 0 to 1. A good accuracy can hide a class that is never found."""
    slices: Share = 0.0
    """Least accuracy, 0 to 1, of each quarter of the test images by brightness, contrast, sharpness, and size where it
    differs. A good accuracy can hide that dark images are lost. 0 asks for nothing."""
    calibration_error: Share = 0.15
    """Largest expected calibration error, 0 to 1: how far the model's confidence is from its accuracy."""
    baseline: Policy = 'not_worse'
    """How the accuracy must compare with that of the serving model (the baseline), beyond chance: 'ignore' does not
    compare them."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence level, between 0 and 1, of the interval of the change in accuracy. A change whose interval leaves out
    zero is beyond chance."""
