"""What the trained network itself answers to a few images, kept so that the serving check can hold the export to it."""

import os

import keras
import tensorflow as tf

from components import features
from trainer.dataset import Records
from trainer.training_rows import Split

MAX_IMAGES = 32  # some two seconds at 224 pixels on two cores


def write_predictions(model: keras.Model, records: Records, split: Split, folder: str) -> None:
    """Writes features.PREDICTIONS_FILE: the first images of a split, and the network's probabilities for them.

    Args:
      model: the network as it was trained, from preprocessed images to probabilities [N, 10]; not the exported graph.
      records: the split, encoded.
      split: the same, preprocessed as training saw it.
      folder: to write to.
    """
    count = min(split.count, MAX_IMAGES)
    images = split.images(tf.range(count, dtype=tf.int64), tf.constant(0, tf.int64))
    probabilities = model.predict_on_batch(images)
    with tf.io.TFRecordWriter(os.path.join(folder, features.PREDICTIONS_FILE)) as writer:
        for encoded, row in zip(records.encoded[:count].numpy(), probabilities, strict=True):
            feature = {
                features.IMAGE_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                features.OUTPUT_PROBABILITIES: tf.train.Feature(float_list=tf.train.FloatList(value=row)),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
