"""The reference of a version: what its test images look like and what it answers to them, to compare requests with.

The Evaluator writes it, the Pusher puts it into the version, and `python -m pipeline drift` compares with it.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.image_statistics import PROPERTIES
from components.places import Place

CONFIDENCE = 'confidence'  # the highest of an image's probabilities
_QUANTILES = np.linspace(0, 1, 101)


@dataclasses.dataclass(frozen=True)
class Reference:
    """Distributions over the test images of a version, a few kilobytes.

    count: how many images.
    quantiles: the 0, 1, ... 100% quantiles by property, for `components.image_statistics.PROPERTIES` and CONFIDENCE;
      a property that no image has is left out.
    predicted: how many images the version gives each class, by label.
    """

    count: int
    quantiles: dict[str, tuple[float, ...]]
    predicted: tuple[int, ...]


def make_reference(measured: npt.NDArray[np.float64], probabilities: npt.NDArray[np.float32]) -> Reference:
    """Summarises what was measured on images.

    Args:
      measured: what `components.image_statistics.measure_images` returns for the images, [N, 5].
      probabilities: the version's predictions for them, [N, C].
    """
    finite = probabilities[np.isfinite(probabilities).all(axis=1)]
    columns = dict(zip(PROPERTIES, measured.T, strict=True)) | {CONFIDENCE: finite.max(axis=1)}
    known = {name: values[np.isfinite(values)] for name, values in columns.items()}
    quantiles = {
        name: tuple(np.quantile(values, _QUANTILES).round(4).tolist()) for name, values in known.items() if len(values)
    }
    predicted = np.bincount(finite.argmax(axis=1), minlength=probabilities.shape[1])
    return Reference(len(measured), quantiles, tuple(predicted.tolist()))


def write_reference(file: Path, reference: Reference) -> None:
    """Writes a reference as JSON."""
    file.write_text(json.dumps(dataclasses.asdict(reference)))


def read_reference(file: Place) -> Reference:
    """Reads what `write_reference` wrote.

    Raises:
      ValueError: the file is damaged.
    """
    try:
        found = json.loads(file.read_text())
        quantiles = {str(name): tuple(map(float, values)) for name, values in found['quantiles'].items()}
        return Reference(int(found['count']), quantiles, tuple(map(int, found['predicted'])))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f'{type(error).__name__}: {error}') from error
