"""Keeps the trained model's predictions for a few images; the serving check compares the exported model's with them."""

import os

import keras
import tensorflow as tf

from components import features
from trainer.dataset import Split

MAX_IMAGES = 32  # take some two seconds at 224 pixels on two cores


def write_predictions(model: keras.Model, split: Split, folder: str) -> None:
    """Writes features.PREDICTIONS_FILE: the first images of a split, and the model's probabilities for them.

    Args:
      model: The model as it was trained, preprocessed images -> probabilities [N, 10]; not the exported graph.
      split: The split, whose rows are preprocessed images.
      folder: Folder to write to.
    """
    count = min(split.count, MAX_IMAGES)
    images = split.read_rows(tf.range(count, dtype=tf.int64), tf.constant(0, tf.int64))
    probabilities = model.predict_on_batch(images)
    with tf.io.TFRecordWriter(os.path.join(folder, features.PREDICTIONS_FILE)) as writer:
        for encoded, row in zip(split.encoded[:count].numpy(), probabilities, strict=True):
            feature = {
                features.IMAGE_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                features.OUTPUT_PROBABILITIES: tf.train.Feature(float_list=tf.train.FloatList(value=row)),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
