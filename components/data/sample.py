"""The embedded sample: a seeded synthetic set in CIFAR-10's binary layout.

Called by `components.data.tfrecords`. It exists so that a fresh clone runs with no download, and so that a
pipeline that works is told from one that is broken. Classes differ in hue as well as in shape: features of
a ResNet50 with random weights carry colour and hardly orientation, so shapes alone could not be learnt
without ImageNet weights.
"""

import colorsys
from pathlib import Path

import numpy as np

from components import features
from components.data import cifar10

_SIZE = features.IMAGE_SHAPE[0]
_ROWS, _COLUMNS = np.mgrid[0:_SIZE, 0:_SIZE].astype(np.float32)


def _draw_mask(label: int, row: float, column: float, radius: float) -> np.ndarray:
    """The shape of class `label` around a centre, in pixels: bool [32, 32]."""
    down, right = _ROWS - row, _COLUMNS - column
    distance = np.hypot(down, right)
    square = np.maximum(abs(down), abs(right))
    shapes = (
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


def draw_image(label: int, random: np.random.Generator) -> np.ndarray:
    """One image of class `label`: uint8 [32, 32, 3], a coloured shape on a noisy grey ground."""
    hue = (label + random.uniform(-0.2, 0.2)) / features.NUM_CLASSES
    colour = colorsys.hsv_to_rgb(hue, random.uniform(0.8, 1.0), random.uniform(0.75, 1.0))
    row, column = random.uniform(13, 19, size=2)
    mask = _draw_mask(label, row, column, random.uniform(10, 14))
    image = np.full(features.IMAGE_SHAPE, random.uniform(0.2, 0.6))
    image[mask] = colour
    image += random.normal(0, 0.05, image.shape)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _draw_batch(count: int, random: np.random.Generator) -> bytes:
    labels = random.permutation(np.arange(count) % features.NUM_CLASSES)
    images = np.stack([draw_image(label, random) for label in labels])
    return cifar10.serialize_batch(images, labels)


def write_sample_archive(path: Path, *, train: int, test: int, seed: int) -> None:
    """Writes a sample archive; equal arguments give equal bytes.

    Args:
      path: where the .tar.gz goes.
      train: images over the five training batches together, at least 5.
      test: images in the test batch, at least 1.
      seed: of the generator that draws them.
    """
    random = np.random.default_rng(seed)
    counts = [len(part) for part in np.array_split(np.arange(train), len(cifar10.TRAIN_BATCHES))]
    members = {name: _draw_batch(count, random) for name, count in zip(cifar10.BATCHES, [*counts, test], strict=True)}
    cifar10.write_archive(path, members)
