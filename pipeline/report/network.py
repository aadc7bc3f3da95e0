"""What the trained network makes of some images: its input, and where it looks for a class (Grad-CAM)."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]
_BATCH = 12  # images at a time, whose activations with gradients are in memory
# The head's first layer, see trainer.model.add_head: what it reads is the last feature map.
_POOLING = ('head_average', 'head_flatten')
_COLORS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))


def preprocess_images(transform_graph: Path, encoded: Sequence[bytes]) -> Floats:
    """Runs the Transform graph, as training, evaluation and serving do.

    Args:
      transform_graph: the Transform component's artifact.
      encoded: PNG or JPEG bytes of N images.

    Returns:
      The network's inputs, float32 [N, S, S, 3].
    """
    import tensorflow as tf
    import tensorflow_transform as tft

    from components import features

    layer = tft.TFTransformOutput(str(transform_graph)).transform_features_layer()
    outputs = layer({features.IMAGE_KEY: tf.constant(list(encoded), tf.string)})
    return np.asarray(outputs[features.IMAGE_XF_KEY])


def show_inputs(transform_graph: Path, encoded: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """Returns images as the network sees them, but in colours that people see: uint8 RGB [N, S, S, 3].

    Every backbone's preprocessing is an affine map of the colours. It is found from what becomes of images of a single
    colour, and undone.

    Args:
      transform_graph, encoded: see `preprocess_images`.
    """
    plain = []
    for color in _COLORS:
        out = io.BytesIO()
        Image.new('RGB', (32, 32), color).save(out, 'PNG')
        plain.append(out.getvalue())
    inputs = preprocess_images(transform_graph, [*plain, *encoded])
    black, *pure = inputs[: len(plain), 0, 0]
    matrix = np.stack([color - black for color in pure]) / 255  # rows: what a unit of red, green and blue adds
    colors = (inputs[len(plain) :] - black) @ np.linalg.inv(matrix)
    return np.asarray(np.clip(np.rint(colors), 0, 255), np.uint8)


def compute_cams(model: Any, inputs: Floats, classes: Sequence[int]) -> Floats:
    """Computes where a network sees a class, by Selvaraju et al., "Grad-CAM" (2017).

    The map is the positive part of the sum of the channels of the last feature map, each weighted by the mean gradient
    of the class's logit with respect to it.

    Args:
      model: a network of `trainer.model.build_model`.
      inputs: preprocessed images, float32 [N, S, S, 3].
      classes: the class to explain, for each image.

    Returns:
      The maps, float32 [N, h, w] of the feature map's size, with 1 at the largest value; all 0 if nothing is positive.
    """
    import keras
    import tensorflow as tf

    pooling = next(layer for layer in model.layers if layer.name in _POOLING)
    last = model.layers[-1]  # Dense with softmax; its input times its kernel is the logits
    trunk, top = keras.Model(model.input, pooling.input), keras.Model(pooling.input, last.input)
    maps = []
    for start in range(0, len(inputs), _BATCH):
        part = tf.constant(classes[start : start + _BATCH])
        with tf.GradientTape() as tape:
            channels = tf.cast(trunk(inputs[start : start + _BATCH], training=False), tf.float32)
            tape.watch(channels)
            logits = tf.cast(top(channels, training=False), tf.float32) @ last.kernel + last.bias
            scores = tf.gather(logits, part, axis=1, batch_dims=1)
        weights = tf.reduce_mean(tape.gradient(scores, channels), axis=(1, 2), keepdims=True)
        maps.append(np.asarray(tf.nn.relu(tf.reduce_sum(weights * channels, axis=-1))))
    found = np.concatenate(maps)
    return np.asarray(found / np.maximum(found.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny))


def explain_answers(model_run: Path, transform_graph: Path, encoded: Sequence[bytes], classes: Sequence[int]) -> Floats:
    """Computes Grad-CAM for images with the network that the Trainer kept.

    Args:
      model_run: the Trainer's artifact.
      transform_graph: see `preprocess_images`.
      encoded: PNG or JPEG bytes of N images.
      classes: see `compute_cams`.

    Returns:
      See `compute_cams`.
    """
    import keras

    from trainer.train import KERAS_FILE

    model = keras.saving.load_model(model_run / KERAS_FILE, compile=False)
    return compute_cams(model, preprocess_images(transform_graph, encoded), classes)
