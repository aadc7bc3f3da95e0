"""TFRecords -> rows -> batches, in an order that a seed and an epoch decide, so that a resumed run sees the same."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from components import features
from components.errors import DataError
from trainer.cluster import Share

SHARDS = 8  # of a split; any divisor of it is a number of workers that train in the order of a single one
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
    """The order of a split's rows: the seed and the epoch decide it, and not how many workers train.

    A row's number and its place are equal modulo SHARDS, so that a worker's places always hold the rows of its share.

    Args:
      count: rows.
      seed: of the permutations; None keeps the order of the rows.
      workers: that train; where they do not divide SHARDS, the order is another one than a single worker's.
    """

    def __init__(self, count: int, seed: int | None, workers: int = 1):
        self.count = count
        self.epoch = 0
        """Where batches begin; set by a callback as each epoch begins."""
        self._seed = seed
        self._shards = math.lcm(SHARDS, workers)

    def list_rows(self, epoch: int) -> np.ndarray:
        """The rows of an epoch, int64 [count]."""
        rows = np.arange(self.count)
        if self._seed is not None:
            random = np.random.default_rng([self._seed, epoch])
            for shard in range(self._shards):
                rows[shard :: self._shards] = random.permutation(rows[shard :: self._shards])
        return rows


def list_batch_starts(count: int, batch_size: int, replicas: int = 1) -> range:
    """Where the batches of an epoch begin; a last one with less than a row for each replica joins the one before.

    Raises:
      DataError: there are fewer rows than replicas.
    """
    if count < replicas:
        raise DataError(
            f'A split has {count} images, which are too few for {replicas} replicas; set trainer.strategy=one.'
        )
    end = count - count % batch_size if count % batch_size < replicas and count > batch_size else count
    return range(0, end, batch_size)


def make_batches(
    rows: Rows,
    labels: np.ndarray,
    order: EpochOrder,
    batch_size: int,
    share: Share | None = None,
    class_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Batches from epoch `order.epoch` on: of that one alone, iterated anew for each; or, for replicas, without end.

    Args:
      rows: reads the features.
      labels: int64 [N].
      order: which rows come when.
      batch_size: rows a batch, over all replicas; the last batch may be smaller.
      share: which rows of a batch are computed here; None is all.
      class_weights: float32 [classes].

    Returns:
      Batches of (features [B, ...], labels int64 [B]), one for each replica here in turn. With class weights or
      replicas there is a third, float32 [B]: the examples' weights, which also make the mean over replicas that have
      different numbers of rows the mean over the batch.
    """
    share = share or Share()
    starts = list_batch_starts(order.count, batch_size, share.replicas)
    ends = [*starts[1:], order.count]
    is_endless = share.replicas > 1  # whether all replicas have come to an end would be asked at every step

    def generate() -> Iterator[tuple[np.ndarray, int, float]]:
        for epoch in itertools.count(order.epoch) if is_endless else [order.epoch]:
            indices = order.list_rows(epoch)
            for start, end in zip(starts, ends, strict=True):
                for replica in share.replicas_here:
                    mine = indices[start:end][(replica - start) % share.replicas :: share.replicas]
                    yield mine, epoch, share.replicas * len(mine) / (end - start)

    labels = tf.constant(labels)

    def read(indices: tf.Tensor, epoch: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, ...]:
        example = rows(indices, epoch), tf.gather(labels, indices)
        if class_weights is None and share.replicas == 1:
            return example
        weights = tf.fill(tf.shape(indices), weight)
        return *example, weights if class_weights is None else weights * tf.gather(class_weights, example[1])

    signature = (tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.float32))
    places = tf.data.Dataset.from_generator(generate, output_signature=signature)
    batches = places.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    count = tf.data.INFINITE_CARDINALITY if is_endless else len(starts)
    return batches.apply(tf.data.experimental.assert_cardinality(count)).prefetch(2)
