"""Slices of the test split by what the images look like: brightness, contrast, sharpness, size.

A good accuracy can hide that dark or blurred images are lost. The Evaluator measures each quarter of the images by each
property, and keeps the figures for the report and the model card.
"""

import dataclasses
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

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


def _measure_image(encoded: bytes) -> tuple[float, ...]:
    from scipy import ndimage

    try:
        image = Image.open(io.BytesIO(encoded))
        gray = np.asarray(image.convert('L'), np.float32)
    except OSError:
        return (np.nan,) * len(PROPERTIES)
    return float(gray.mean()), float(gray.std()), float(ndimage.laplace(gray).var()), float(gray.size)


def measure_images(images: Sequence[bytes]) -> npt.NDArray[np.float64]:
    """Measures the properties of encoded images: float64 [N, 4], in the order of PROPERTIES.

    Brightness is the mean and contrast the standard deviation of the gray values, both 0-255. Sharpness is the variance
    of their Laplacian. Size is the number of pixels. The values of an image that cannot be decoded are not numbers.
    """
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
        return np.array(list(pool.map(_measure_image, images)), np.float64).reshape(-1, len(PROPERTIES))


def measure_slices(images: Sequence[bytes], right: npt.NDArray[np.bool_]) -> tuple[Slice, ...]:
    """Counts the right answers in each quarter of the images by each property.

    Images that cannot be decoded are in no slice. A property that is the same for all images has no slices, as the size
    of CIFAR-10's images.

    Args:
      images: encoded images, N of them.
      right: whether the model gives each its class, [N].
    """
    slices, measured = [], measure_images(images)
    for column, name in enumerate(PROPERTIES):
        values = measured[:, column]
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
