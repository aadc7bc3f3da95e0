"""TFRecords -> batches, through the Transform graph."""

import tensorflow as tf
import tensorflow_transform as tft

from components import features
from components.errors import DataError


def read_dataset(
    file_patterns: list[str],
    transform_output: tft.TFTransformOutput,
    *,
    batch_size: int,
    shuffle_seed: int | None = None,
) -> tf.data.Dataset:
    """One pass over a split, decoded and preprocessed by the graph that evaluation and serving run as well.

    Args:
      file_patterns: globs of GZIP TFRecord files.
      transform_output: whose graph to run.
      batch_size: images a batch; the last batch may be smaller.
      shuffle_seed: shuffles the whole split, anew each epoch; None keeps the files' order.

    Returns:
      Batches of (image_xf float32 [N, S, S, 3], label_xf int64 [N]).

    Raises:
      DataError: the patterns match no file.
    """
    files = sorted(file for pattern in file_patterns for file in tf.io.gfile.glob(pattern))
    if not files:
        raise DataError(f'No TFRecord file matches {", ".join(file_patterns)}; the split is empty.')
    raw_spec = transform_output.raw_feature_spec()
    spec = {key: raw_spec[key] for key in (features.IMAGE_KEY, features.LABEL_KEY)}
    transform = transform_output.transform_features_layer()

    def parse_and_transform(examples):
        transformed = transform(tf.io.parse_example(examples, spec))
        return transformed[features.IMAGE_XF_KEY], transformed[features.LABEL_XF_KEY]

    records = tf.data.TFRecordDataset(files, compression_type='GZIP')
    if shuffle_seed is not None:
        # Encoded images are some 2 KB, so a buffer for all of CIFAR-10 takes 100 MB, and the shuffle is a full one.
        records = records.shuffle(100_000, seed=shuffle_seed, reshuffle_each_iteration=True)
    return (
        records.batch(batch_size)
        .map(parse_and_transform, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
