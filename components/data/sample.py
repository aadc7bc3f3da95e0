"""The embedded sample: a seeded synthetic set in CIFAR-10's binary format.

Called by `pipeline.data`. It lets a fresh clone run without a download, and it can be learnt, so that a working
pipeline can be told from a broken one. Classes differ in hue as well as in shape: features of a ResNet50 with random
weights carry colour and hardly orientation, so without ImageNet weights a difference only in shape could not be learnt.
"""

import colorsys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.data import cifar10
from components.data.cifar10 import CONTRACT

_SIZE = CONTRACT.image_shape[0]
_ROWS, _COLUMNS = np.mgrid[0:_SIZE, 0:_SIZE].astype(np.float32)


def _draw_mask(label: int, row: float, column: float, radius: float) -> npt.NDArray[np.bool_]:
    """Draws the shape of class `label` around a centre: bool [32, 32]. `row`, `column` and `radius` are in pixels."""
    down, right = _ROWS - row, _COLUMNS - column
    distance = np.hypot(down, right)
    square = np.maximum(abs(down), abs(right))
    shapes: tuple[npt.NDArray[np.bool_], ...] = (
        distance < radius,  # disc
        square < radius * 0.9,  # square
        abs(down) + abs(right) < radius * 1.2,  # diamond
        (distance < radius) & (distance > radius * 0.55),  # ring
        (square < radius) & (np.minimum(abs(down), abs(right)) < radius * 0.35),  # cross
        (square < radius) & (down % 6 < 3),  # horizontal stripes
        (square < radius) & (right % 6 < 3),  # vertical stripes
        (square < radius) & (abs(abs(down) - abs(right)) < radius * 0.35),  # diagonal cross
        (down > -radius) & (down < radius * 0.8) & (abs(right) < (down + radius) * 0.55),  # triangle
        (square < radius) & ((down // 4 + right // 4) % 2 == 0),  # checkerboard
    )
    return shapes[label]


def draw_image(label: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draws one image of class `label`: uint8 [32, 32, 3], a coloured shape on a noisy grey ground."""
    hue = (label + random.uniform(-0.2, 0.2)) / CONTRACT.num_classes
    colour = colorsys.hsv_to_rgb(hue, random.uniform(0.8, 1.0), random.uniform(0.75, 1.0))
    row, column = random.uniform(13, 19, size=2)
    mask = _draw_mask(label, row, column, random.uniform(10, 14))
    image: npt.NDArray[np.float64] = np.full(CONTRACT.image_shape, random.uniform(0.2, 0.6))
    image[mask] = colour
    image += random.normal(0, 0.05, image.shape)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _write_batch(path: Path, count: int, random: np.random.Generator) -> cifar10.BatchFile:
    labels = random.permutation(np.arange(count) % CONTRACT.num_classes)
    images = np.stack([draw_image(label, random) for label in labels])
    return cifar10.write_batch(path, images, labels)


def write_sample(folder: Path, *, train: int, test: int, seed: int) -> list[cifar10.BatchFile]:
    """Draws the sample and writes it as batch files; equal arguments give equal bytes.

    Args:
      folder: where the batch files go; it exists.
      train: images in the five training batches together, at least 5.
      test: images in the test batch, at least 1.
      seed: of the generator that draws the images.

    Returns:
      The six batch files, in the order of `cifar10.BATCHES`.
    """
    random = np.random.default_rng(seed)
    counts = [len(part) for part in np.array_split(np.arange(train), len(cifar10.TRAIN_BATCHES))]
    return [
        _write_batch(folder / name, count, random) for name, count in zip(cifar10.BATCHES, [*counts, test], strict=True)
    ]
