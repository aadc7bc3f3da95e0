"""Mixes training images in pairs, and their class labels in the same shares: mixup and CutMix.

Keras' layers MixUp and CutMix draw from a random generator that counts their calls, so what a batch gets would depend
on the order in which threads ask, and on how many batches came before a restart. Here the seed, the epoch and the
batch decide it.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

MixKind = Literal['mixup', 'cutmix']

# The share that an image keeps is drawn from Beta(alpha, alpha), for each image by itself. 0.2 is what Zhang et al.
# (2018), "mixup: Beyond Empirical Risk Minimization", take for ImageNet, and 1.0, which is a uniform share, what Yun et
# al. (2019), "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", take.
ALPHA: dict[MixKind, float] = {'mixup': 0.2, 'cutmix': 1.0}


class Pairing(NamedTuple):
    """Which image of a batch is mixed with which, and how."""

    partners: npt.NDArray[np.int64]
    """The place in the batch of the image that each image is mixed with: a permutation, [B]."""
    shares: npt.NDArray[np.float32]
    """The share of itself that each image keeps, 0-1, [B]."""
    centers: npt.NDArray[np.float32]
    """The centre of the rectangle that CutMix pastes, in heights and widths of the image, 0-1, [B, 2]."""


class Mixer:
    """Mixes the images of a batch in pairs.

    Args:
      kind: 'mixup' averages the two images; 'cutmix' pastes a rectangle of the partner in its own place.
      seed: Together with the epoch and the batch, it decides the pairing.
    """

    def __init__(self, kind: MixKind, seed: int):
        self._kind, self._seed = kind, seed

    def draw_pairing(self, epoch: int, start: int, count: int) -> Pairing:
        """Draws the pairing of the batch that begins at place `start` of an epoch and has `count` images."""
        # NumPy ignores zeros at the end of a seed. The 1 sets the draws apart from those of the order of the rows.
        random = np.random.default_rng([self._seed, epoch, start, 1])
        return Pairing(
            random.permutation(count),
            random.beta(ALPHA[self._kind], ALPHA[self._kind], count).astype(np.float32),
            random.random((count, 2), np.float32),
        )

    def mix(
        self, images: tf.Tensor, partners: tf.Tensor, shares: tf.Tensor, centers: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes preprocessed images. Preprocessing is affine, so this is the same as to preprocess mixed images.

        Args:
          images: float32 [B, S, S, 3].
          partners: The image that each is mixed with, float32 [B, S, S, 3].
          shares, centers: See `Pairing`.

        Returns:
          The mixed images, float32 [B, S, S, 3], and the share of itself that each kept, float32 [B]. With CutMix it
          is the share of the pixels, which differs from `shares` where a rectangle goes beyond the image's border.
        """
        if self._kind == 'mixup':
            weights = tf.reshape(shares, [-1, 1, 1, 1])
            return weights * images + (1 - weights) * partners, shares
        inside = _draw_rectangles(tf.shape(images)[1:3], tf.sqrt(1 - shares), centers)
        kept = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=[1, 2])
        return tf.where(inside[..., tf.newaxis], partners, images), kept


def _draw_rectangles(size: tf.Tensor, sides: tf.Tensor, centers: tf.Tensor) -> tf.Tensor:
    """Marks the pixels within a rectangle for each image, cut off at the image's border: bool [B, height, width].

    Args:
      size: Height and width in pixels, int32 [2].
      sides: Height and width of each rectangle, in heights and widths of the image, float32 [B].
      centers: Its centre, in the same unit, float32 [B, 2].
    """
    unit = tf.cast(size, tf.float32)
    half = sides[:, tf.newaxis] / 2
    first, end = (tf.cast(tf.round(edges * unit), tf.int32) for edges in (centers - half, centers + half))

    def is_inside(axis: int) -> tf.Tensor:
        places = tf.range(size[axis])
        return (places >= first[:, axis, tf.newaxis]) & (places < end[:, axis, tf.newaxis])

    return is_inside(0)[:, :, tf.newaxis] & is_inside(1)[:, tf.newaxis, :]
