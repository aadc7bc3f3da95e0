"""The `predict` command: classifies image files with a pushed model, with TensorFlow alone."""

import json
from pathlib import Path
from typing import TextIO

import tensorflow as tf

from components import features
from components.errors import UsageError
from components.places import Place, fetch_folder
from components.serving.versions import MODEL_FILE, find_serving_version


def _classify(signature, image: Path) -> dict:
    """The JSON object of one image. Raises OSError or tf.errors.InvalidArgumentError for one that cannot be read."""
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
      model: a version's folder, or a serving folder, whose stable or newest version is taken.
      images: PNG or JPEG files of any size.
      output: where the lines go.

    Returns:
      A sentence for each image that cannot be classified.

    Raises:
      UsageError: `model` holds no model.
    """
    version = model if (model / MODEL_FILE).exists() else find_serving_version(model)
    if version is None:
        raise UsageError(f'{model} holds no SavedModel, nor numbered versions of one; --model takes what a run pushed.')
    try:
        with fetch_folder(version) as folder:
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
            failures.append(f'{image} is no image that can be decoded; PNG and JPEG are.')
    return failures
