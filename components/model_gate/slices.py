"""Slices of the test split by what the images look like: brightness, contrast, sharpness, size (number of pixels).

A good accuracy can hide that dark or blurred images are lost. The Evaluator measures each quarter of the images by each
property, and keeps the figures for the report and the model card.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

SLICES_FILE = 'slices.json'  # in the Evaluator's `evaluation` artifact
PROPERTIES = ('brightness', 'contrast', 'sharpness', 'size')
PARTS = 4


@dataclasses.dataclass(frozen=True)
class Slice:
    """A quarter of the test images by one of their properties.

    property: one of PROPERTIES.
    part: which quarter, from 1 for the lowest values to 4.
    low, high: the least and the largest value in it.
    right: how many of its images the model gives the right class.
    count: how many images it has.
    """

    property: str
    part: int
    low: float
    high: float
    right: int
    count: int

    def get_name(self) -> str:
        """Returns its name, such as 'brightness_1_of_4'."""
        return f'{self.property}_{self.part}_of_{PARTS}'


def measure_slices(measured: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> tuple[Slice, ...]:
    """Counts the right answers in each quarter of the images by each property.

    Images that cannot be decoded are in no slice. A property that is the same for all images has no slices, as the size
    of CIFAR-10's images.

    Args:
      measured: what `components.image_statistics.measure_images` returns for the images, [N, 5].
      right: whether the model gives each its class, [N].
    """
    slices, (*looks, width, height) = [], measured.T
    for name, values in zip(PROPERTIES, [*looks, width * height], strict=True):
        known = np.flatnonzero(np.isfinite(values))
        if not len(known) or np.ptp(values[known]) == 0:
            continue
        order = known[np.argsort(values[known], kind='stable')]
        for part, inside in enumerate(np.array_split(order, PARTS), start=1):
            if len(inside):
                ends = float(values[inside[0]]), float(values[inside[-1]])
                slices.append(Slice(name, part, *ends, int(right[inside].sum()), len(inside)))
    return tuple(slices)


def write_slices(evaluation: Path, slices: Sequence[Slice]) -> None:
    """Writes SLICES_FILE: a list with an object for each slice."""
    (evaluation / SLICES_FILE).write_text(json.dumps([dataclasses.asdict(each) for each in slices], indent=2))


def read_slices(evaluation: Path) -> tuple[Slice, ...]:
    """Reads what `write_slices` wrote; empty for an evaluation by an earlier version, which has none."""
    file = evaluation / SLICES_FILE
    return tuple(Slice(**each) for each in json.loads(file.read_text())) if file.exists() else ()
