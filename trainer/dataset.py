"""Reads a split's TFRecords, and makes the batches that Keras trains on.

The order of the rows and the augmentation depend only on the seed and the epoch. A training that was interrupted
therefore sees the same batches after it is resumed as one that was not.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from components import features
from components.errors import DataError
from trainer.cluster import Share
from trainer.mixing import Mixer

SHARDS = 8  # of a split; if the number of workers divides it, they train in the same order as a single worker
Augmentation = Literal['none', 'flip', 'flip_crop']
_CROP_SHARE = 1 / 8  # pad-and-crop shifts by up to 4 of CIFAR-10's 32 pixels, as He et al. 2015 do (section 4.2)

RowReader = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Reads the model's inputs for some rows: (row numbers int64 [N], epoch int64 scalar) -> inputs [N, ...]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """One split of the data set, held in memory as encoded images, and how the model's inputs are read from it.

    Row i is the i-th image together with its class label.
    """

    encoded: tf.Tensor
    """PNG or JPEG bytes, string [N]; some 2.5 KB an image of 32 pixels, and 50 KB of 256."""
    labels: npt.NDArray[np.int64]
    """Class labels, int64 [N]."""
    read_rows: RowReader
    """Reads the model's inputs: the preprocessed images, or the trunk's cached outputs for them."""

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.labels)


def read_split(
    file_patterns: list[str],
    transform_output: tft.TFTransformOutput,
    augmentation: Augmentation = 'none',
    seed: int = 0,
) -> Split:
    """Reads a whole split, in the order of its files; its rows are read as preprocessed images.

    Args:
      file_patterns: Globs of GZIP TFRecord files.
      transform_output: Holds the specification of the raw features and the Transform graph.
      augmentation: What is done to the images, see `make_image_reader`.
      seed: Seed of the augmentation.

    Raises:
      DataError: The patterns match no file, or the files hold no record.
    """
    files = sorted(file for pattern in file_patterns for file in tf.io.gfile.glob(pattern))
    raw_spec = transform_output.raw_feature_spec()
    spec = {key: raw_spec[key] for key in (features.IMAGE_KEY, features.LABEL_KEY)}
    batches = tf.data.TFRecordDataset(files, compression_type='GZIP').batch(1024)
    parsed = [tf.io.parse_example(batch, spec) for batch in batches] if files else []
    if not parsed:
        raise DataError(
            f'No TFRecord file with records matches {", ".join(file_patterns)}; the split is empty. Write the data '
            'again with `python -m pipeline data`.'
        )
    encoded = tf.concat([batch[features.IMAGE_KEY] for batch in parsed], axis=0)
    labels = np.concatenate([batch[features.LABEL_KEY].numpy() for batch in parsed])
    reader = make_image_reader(encoded, transform_output, augmentation, seed)
    return Split(encoded=encoded, labels=labels, read_rows=reader)


def make_image_reader(
    encoded: tf.Tensor, transform_output: tft.TFTransformOutput, augmentation: Augmentation, seed: int
) -> RowReader:
    """Makes a reader of preprocessed images, float32 [N, S, S, 3].

    It runs the Transform graph, which evaluation and serving run as well.

    Args:
      encoded: PNG or JPEG bytes, string [N].
      transform_output: Holds the Transform graph.
      augmentation: 'none'; 'flip' mirrors half of the images; 'flip_crop' also shifts them, by up to an eighth of
        their size.
      seed: Together with the epoch and the row number, it decides how an image is augmented.
    """
    transform = transform_output.transform_features_layer()

    def read(indices: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        images = transform({features.IMAGE_KEY: tf.gather(encoded, indices)})[features.IMAGE_XF_KEY]
        if augmentation == 'none':
            return images
        seeds = tf.stack([tf.fill(tf.shape(indices), epoch + seed * 1_000_003), indices], axis=1)
        return tf.map_fn(
            lambda pair: _augment(pair[0], pair[1], augmentation), (images, seeds), fn_output_signature=tf.float32
        )

    return read


def _augment(image: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Mirrors and shifts one image, float32 [S, S, 3], as `seed`, int64 [2], decides.

    Pixels that a shift brings in are the image's own border, mirrored.
    """
    image = tf.image.stateless_random_flip_left_right(image, seed)
    if augmentation == 'flip':
        return image
    size = image.shape[0]
    pad = max(1, round(size * _CROP_SHARE))
    padded = tf.pad(image, [[pad, pad], [pad, pad], [0, 0]], 'SYMMETRIC')
    return tf.image.stateless_random_crop(padded, [size, size, 3], seed + 1)


class EpochOrder:
    """The order in which an epoch takes a split's rows, decided by the seed and the epoch.

    It is the same for every number of workers that divides SHARDS. Rows are permuted only among those whose numbers are
    equal modulo SHARDS, so place p of every epoch holds a row whose number equals p modulo SHARDS. The places of a
    worker (see `trainer.cluster.Share`) therefore hold the same rows in every epoch, and it caches only these.

    Args:
      count: Number of rows.
      seed: Seed of the permutations; None keeps the order of the rows.
      workers: Number of workers that train. If it does not divide SHARDS, the least common multiple of the two
        takes the place of SHARDS, and the order differs from that of a single worker.
    """

    def __init__(self, count: int, seed: int | None, workers: int = 1):
        self.count = count
        self.epoch = 0
        """The epoch at which the next iteration over the batches begins; a callback sets it as each epoch begins."""
        self._seed = seed
        self._shards = math.lcm(SHARDS, workers)

    def list_rows(self, epoch: int) -> npt.NDArray[np.int64]:
        """Returns the row numbers in the order of an epoch, int64 [count]."""
        rows = np.arange(self.count)
        if self._seed is not None:
            random = np.random.default_rng([self._seed, epoch])
            for shard in range(self._shards):
                rows[shard :: self._shards] = random.permutation(rows[shard :: self._shards])
        return rows


def list_batch_starts(count: int, batch_size: int, replicas: int = 1) -> range:
    """Returns the places in an epoch at which its batches begin.

    A last batch that has fewer rows than there are replicas is merged into the batch before it.

    Raises:
      DataError: There are fewer rows than replicas.
    """
    if count < replicas:
        raise DataError(
            f'A split has {count} images, which are too few for {replicas} replicas; set trainer.strategy=one.'
        )
    end = count - count % batch_size if count % batch_size < replicas and count > batch_size else count
    return range(0, end, batch_size)


def _deal_batches(order: EpochOrder, starts: range, share: Share, mixer: Mixer | None) -> Iterator[tuple[Any, ...]]:
    """Deals out the batches from `order.epoch` on, to each replica of this worker in turn; see `make_batches`.

    Yields:
      Row numbers int64 [B], epoch, weight of each row; and with a mixer also the numbers of the rows that they are
      mixed with, int64 [B], and a pairing's shares and centres.
    """
    ends = [*starts[1:], order.count]
    for epoch in itertools.count(order.epoch) if share.replicas > 1 else [order.epoch]:
        indices = order.list_rows(epoch)
        for start, end in zip(starts, ends, strict=True):
            rows = indices[start:end]
            # Drawn for the batch of all replicas together, so that their number does not change the pairs.
            pairing = mixer.draw_pairing(epoch, start, end - start) if mixer else None
            for replica in share.replicas_here:
                mine = slice((replica - start) % share.replicas, None, share.replicas)
                dealt = rows[mine], epoch, share.replicas * len(rows[mine]) / (end - start)
                if pairing is None:
                    yield dealt
                else:
                    yield *dealt, rows[pairing.partners[mine]], pairing.shares[mine], pairing.centers[mine]


def _read_mixed(
    read_rows: RowReader, labels: tf.Tensor, mixer: Mixer, indices: tf.Tensor, epoch: tf.Tensor, *pairing: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads images and the labels' shares of each class, float32 [B, classes], both mixed."""
    partners, shares, centers = pairing
    # Most rows are the partner of another one, and are decoded only once.
    rows, places = tf.unique(tf.concat([indices, partners], axis=0))
    images, others = tf.split(tf.gather(read_rows(rows, epoch), places), 2)
    mixed, kept = mixer.mix(images, others, shares, centers)
    kept = kept[:, tf.newaxis]
    return mixed, kept * tf.gather(labels, indices) + (1 - kept) * tf.gather(labels, partners)


def _weigh_classes(
    labels: tf.Tensor, class_weights: npt.NDArray[np.float32], *, is_share: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the labels and the weights of the rows, float32 [B], with which the loss weighs the classes.

    With shares of classes, a row's loss is to be the sum over the classes of weight * share * -log(probability). So the
    products of weight and share become the labels, scaled to a sum of 1, and the scale becomes the weight of the row.
    """
    if not is_share:
        return labels, tf.gather(class_weights, labels)
    weighted = labels * class_weights
    scale = tf.reduce_sum(weighted, axis=1)
    return tf.math.divide_no_nan(weighted, scale[:, tf.newaxis]), scale


def switch_tuning_off(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset without the thread that tunes its parallelism.

    That thread sleeps for up to a minute, and the end of an iteration may wait for it to wake up.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def make_batches(
    split: Split,
    order: EpochOrder,
    batch_size: int,
    share: Share | None = None,
    class_weights: npt.NDArray[np.float32] | None = None,
    *,
    num_classes: int | None = None,
    mixer: Mixer | None = None,
) -> tf.data.Dataset:
    """Makes a dataset of batches.

    For a single replica, every iteration over the dataset gives the batches of one epoch, `order.epoch`. For several
    replicas it begins at that epoch and continues with the following ones without end, because TensorFlow would
    otherwise have to ask all replicas at every step whether they have reached the end.

    Args:
      split: The rows.
      order: The order of the rows.
      batch_size: Number of rows in a batch, over all replicas together; the last batch may be smaller.
      share: The share of every batch that is computed by this worker; None means all of it.
      class_weights: The weight of each class in the loss, float32 [classes].
      num_classes: The labels are the share of each of so many classes, float32 [B, num_classes]; None for int64 [B].
      mixer: Mixes the rows, which must be images, and their labels, which must be shares.

    Returns:
      Batches of (inputs [B, ...], labels). With several replicas, every batch is cut into one part for each
      replica of this worker, and the parts follow each other. With class weights or several replicas there is a third
      component, the weights of the rows, float32 [B]. They also correct for replicas that get different numbers of
      rows, so that the mean of the replicas' losses is the mean over the batch.
    """
    share = share or Share()
    starts = list_batch_starts(order.count, batch_size, share.replicas)
    labels = tf.one_hot(split.labels, num_classes) if num_classes else tf.constant(split.labels)

    def read(indices: tf.Tensor, epoch: tf.Tensor, weight: tf.Tensor, *pairing: tf.Tensor) -> tuple[tf.Tensor, ...]:
        if mixer:
            rows, targets = _read_mixed(split.read_rows, labels, mixer, indices, epoch, *pairing)
        else:
            rows, targets = split.read_rows(indices, epoch), tf.gather(labels, indices)
        if class_weights is None and share.replicas == 1:
            return rows, targets
        weights = tf.fill(tf.shape(indices), weight)
        if class_weights is None:
            return rows, targets, weights
        targets, scale = _weigh_classes(targets, class_weights, is_share=num_classes is not None)
        return rows, targets, weights * scale

    signature = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.float32)]
    if mixer:
        floats = [tf.TensorSpec(shape, tf.float32) for shape in ([None], [None, 2])]
        signature += [tf.TensorSpec([None], tf.int64), *floats]
    places = tf.data.Dataset.from_generator(
        lambda: _deal_batches(order, starts, share, mixer), output_signature=tuple(signature)
    )
    batches = places.map(read, num_parallel_calls=len(os.sched_getaffinity(0)))
    count = tf.data.INFINITE_CARDINALITY if share.replicas > 1 else len(starts)
    return switch_tuning_off(batches.apply(tf.data.experimental.assert_cardinality(count)).prefetch(2))
