"""The `predict` command: classifies image files with a pushed model; of the libraries it needs only TensorFlow."""

import json
from pathlib import Path
from typing import Any, TextIO

import tensorflow as tf

from components import features
from components.errors import UsageError
from components.places import Place, fetch
from components.progress import track
from components.serving.versions import MODEL_FILE, find_serving_version


def _classify(signature: Any, image: Path) -> dict[str, Any]:
    """Returns the JSON object of one image.

    Args:
      signature: the model's function for `serving_default`.
      image: a PNG or JPEG file.

    Raises:
      OSError: the file cannot be read.
      tf.errors.InvalidArgumentError: the file is not an image that can be decoded.
    """
    outputs = signature(**{features.IMAGE_KEY: tf.constant([image.read_bytes()])})
    probabilities = outputs[features.OUTPUT_PROBABILITIES].numpy()[0]
    label = int(outputs[features.OUTPUT_LABEL].numpy()[0])
    return {
        'image': str(image),
        features.OUTPUT_CLASS_NAME: outputs[features.OUTPUT_CLASS_NAME].numpy()[0].decode(),
        features.OUTPUT_LABEL: label,
        features.OUTPUT_PROBABILITIES: [round(float(probability), 6) for probability in probabilities],
    }


def predict(model: Place, images: list[Path], output: TextIO) -> list[str]:
    """Prints a JSON line for each readable image.

    Args:
      model: a version's folder, or a serving folder, of which the stable or else the newest version is used.
      images: PNG or JPEG files of any size.
      output: receives the lines.

    Returns:
      A sentence for each image that cannot be classified.

    Raises:
      UsageError: `model` holds no model.
    """
    version = model if (model / MODEL_FILE).exists() else find_serving_version(model)
    if version is None:
        raise UsageError(
            f'{model} holds neither a SavedModel nor numbered versions; --model takes a folder that a run pushed to.'
        )
    try:
        with track('loading the model'), fetch(version) as folder:
            loaded = tf.saved_model.load(str(folder))
        signature = loaded.signatures[features.SIGNATURE_SERVING_DEFAULT]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f'{version} cannot be loaded as a model of this pipeline: {reason}') from error
    failures = []
    for image in images:
        try:
            print(json.dumps(_classify(signature, image)), file=output)
        except OSError as error:
            failures.append(f'{image} cannot be read: {error.strerror}.')
        except tf.errors.InvalidArgumentError:
            failures.append(f'{image} is not an image that can be decoded; give a PNG or JPEG file.')
    return failures
