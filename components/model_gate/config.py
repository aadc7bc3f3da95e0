"""GateConfig, in a file of its own so that the command line can list it without importing TFMA."""

import difflib
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from components.errors import UsageError
from components.settings import Settings

Policy = Literal['not_worse', 'better', 'ignore']
Share = Annotated[float, Field(ge=0, le=1)]

_LISTED = 20  # class names that an error lists


def _split_floor(text: str) -> tuple[str, float]:
    """Splits CLASS=SHARE; the last equals sign counts, because a class name may hold others."""
    name, _, share = text.rpartition('=')
    return name, float(share)


def _check_floor(text: str) -> str:
    try:
        name, share = _split_floor(text)
    except ValueError:
        name, share = '', 0.0
    if not name or not 0 <= share <= 1:
        raise ValueError('must be CLASS=SHARE with a share of 0 to 1, such as rose=0.9')
    return text


Floor = Annotated[str, AfterValidator(_check_floor)]


@dataclass(frozen=True, kw_only=True)
class GateConfig(Settings):
    """The bounds that a model must keep on the test split to be pushed."""

    SECTION: ClassVar[str] = 'gate'

    accuracy: Share = 0.90
    """Least accuracy on the whole test split, 0 to 1. It must also be better, beyond chance, than always answering the
    class that is most frequent in the test split. 0 asks for neither."""
    recall: Share = 0.75
    """Least recall of each class on the test split, 0 to 1. A good accuracy can hide a class that is never found."""
    recall_by_class: tuple[Floor, ...] = ()
    """Least recall of single classes, each CLASS=SHARE, such as rose=0.9; `recall` counts for the others."""
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

    def list_recalls(self, class_names: Sequence[str]) -> list[float]:
        """Returns the least recall of each class, in the order of the class names.

        Raises:
          UsageError: `recall_by_class` names a class that the data does not have.
        """
        floors = dict(map(_split_floor, self.recall_by_class))
        for name in floors:
            if name not in class_names:
                raise UsageError(_refuse_class(name, class_names))
        return [floors.get(name, self.recall) for name in class_names]


def _refuse_class(name: str, class_names: Sequence[str]) -> str:
    """Says that the data has no class of this name, and which it has."""
    near = difflib.get_close_matches(name, class_names, n=1)
    meant = f' Did you mean {near[0]}?' if near else ''
    listed = ', '.join(class_names[:_LISTED]) + (', ...' if len(class_names) > _LISTED else '')
    return f'gate.recall_by_class names the class {name!r}, which the data does not have.{meant} It has {listed}.'
