"""TFRecords -> rows -> batches, in an order that a seed and an epoch decide, so that a resumed run sees the same."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from components import features
from components.errors import DataError

Augmentation = Literal['none', 'flip', 'flip_crop']
_CROP_SHARE = 4 / 32  # pad-and-crop shifts by up to 4 of CIFAR-10's 32 pixels, as He et al. 2015 do (section 4.2)

Rows = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Reads rows: (indices int64 [N], epoch int64 scalar) -> features [N, ...]."""


class Records(NamedTuple):
    """A split, held in memory as it is stored: some 2.5 KB an image.

    encoded: string tensor [N], PNG or JPEG bytes.
    labels: int64 [N].
    """

    encoded: tf.Tensor
    labels: np.ndarray


def read_records(file_patterns: list[str], transform_output: tft.TFTransformOutput) -> Records:
    """Reads a whole split, in the order of its files.

    Args:
      file_patterns: globs of GZIP TFRecord files.
      transform_output: for the raw features' specification.

    Raises:
      DataError: the patterns match no file, or the files hold no record.
    """
    files = sorted(file for pattern in file_patterns for file in tf.io.gfile.glob(pattern))
    raw_spec = transform_output.raw_feature_spec()
    spec = {key: raw_spec[key] for key in (features.IMAGE_KEY, features.LABEL_KEY)}
    batches = tf.data.TFRecordDataset(files, compression_type='GZIP').batch(1024)
    parsed = [tf.io.parse_example(batch, spec) for batch in batches] if files else []
    if not parsed:
        raise DataError(f'No TFRecord file with records matches {", ".join(file_patterns)}; the split is empty.')
    labels = np.concatenate([batch[features.LABEL_KEY].numpy() for batch in parsed])
    return Records(tf.concat([batch[features.IMAGE_KEY] for batch in parsed], axis=0), labels)


def make_image_rows(
    records: Records, transform_output: tft.TFTransformOutput, augmentation: Augmentation, seed: int
) -> Rows:
    """Rows of preprocessed images, float32 [N, S, S, 3], through the graph that evaluation and serving run as well.

    Args:
      records: the split.
      transform_output: whose graph to run.
      augmentation: 'flip' mirrors half of the images; 'flip_crop' also shifts them, by up to an eighth of the size.
      seed: with the epoch and the row it decides what an image's augmentation is.
    """
    transform = transform_output.transform_features_layer()

    def read(indices: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        images = transform({features.IMAGE_KEY: tf.gather(records.encoded, indices)})[features.IMAGE_XF_KEY]
        if augmentation == 'none':
            return images
        seeds = tf.stack([tf.fill(tf.shape(indices), epoch + seed * 1_000_003), indices], axis=1)
        return tf.map_fn(
            lambda pair: _augment(pair[0], pair[1], augmentation), (images, seeds), fn_output_signature=tf.float32
        )

    return read


def _augment(image: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """One image, float32 [S, S, 3], mirrored and shifted as `seed`, int64 [2], decides; the border is repeated."""
    image = tf.image.stateless_random_flip_left_right(image, seed)
    if augmentation == 'flip':
        return image
    size = image.shape[0]
    pad = max(1, round(size * _CROP_SHARE))
    padded = tf.pad(image, [[pad, pad], [pad, pad], [0, 0]], 'SYMMETRIC')
    return tf.image.stateless_random_crop(padded, [size, size, 3], seed + 1)


class EpochOrder:
    """The order of rows: `epoch`, set by a callback as each begins, and the seed decide it.

    Args:
      count: rows.
      seed: of the permutations; None keeps the order of the rows.
    """

    def __init__(self, count: int, seed: int | None):
        self.epoch = 0
        self._count = count
        self._seed = seed

    def list_rows(self) -> np.ndarray:
        """The rows of this epoch, int64 [count]."""
        if self._seed is None:
            return np.arange(self._count)
        return np.random.default_rng([self._seed, self.epoch]).permutation(self._count)


def make_batches(rows: Rows, labels: np.ndarray, order: EpochOrder, batch_size: int) -> tf.data.Dataset:
    """Batches for one epoch; iterated anew for each.

    Args:
      rows: reads the features.
      labels: int64 [N].
      order: which rows come when.
      batch_size: rows a batch; the last batch may be smaller.

    Returns:
      Batches of (features [B, ...], labels int64 [B]).
    """

    def generate() -> Iterator[tuple[np.ndarray, int]]:
        epoch, indices = order.epoch, order.list_rows()
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size], epoch

    signature = (tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64))
    batches = tf.data.Dataset.from_generator(generate, output_signature=signature)
    labels = tf.constant(labels)
    batches = batches.map(lambda indices, epoch: (rows(indices, epoch), tf.gather(labels, indices)))
    count = -(-len(labels) // batch_size)
    return batches.apply(tf.data.experimental.assert_cardinality(count)).prefetch(2)
