"""What the exported model sees of some images, and where it looks for a class (Grad-CAM): its signature `explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components import features
from components.progress import track

_BATCH = 32  # images in a request


class Explained(NamedTuple):
    """What a model says of N images; the signature is described in `trainer.export`."""

    seen: npt.NDArray[np.uint8]
    """The network's inputs in visible colours, RGB [N, S, S, 3]."""
    heat_maps: npt.NDArray[np.float32]
    """Where it sees the class, 0 to 1, [N, h, w]."""


def explain_images(saved_model: Path, encoded: Sequence[bytes], labels: Sequence[int]) -> Explained | None:
    """Asks an exported model where it sees classes.

    Args:
      saved_model: the SavedModel's folder.
      encoded: the bytes of N images, N > 0, that can all be decoded.
      labels: the class to explain, for each image; features.NO_LABEL for the one that the model predicts.

    Returns:
      None if the model has no such signature, as models that were exported by earlier versions.
    """
    import tensorflow as tf

    from components.saved_model import skip_costly_passes

    model = tf.saved_model.load(str(saved_model))
    if features.SIGNATURE_EXPLAIN not in model.signatures:
        return None
    ask = skip_costly_passes(model.signatures[features.SIGNATURE_EXPLAIN])
    answers = []
    with track('Grad-CAM', len(encoded), 'images') as advance:
        for start in range(0, len(encoded), _BATCH):
            images, classes = encoded[start : start + _BATCH], labels[start : start + _BATCH]
            image, label = tf.constant(list(images), tf.string), tf.constant(list(classes), tf.int64)
            answers.append(ask(**{features.IMAGE_KEY: image, features.LABEL_KEY: label}))
            advance(len(images))
    keys = features.OUTPUT_SEEN, features.OUTPUT_HEAT_MAP
    return Explained(*(np.concatenate([answer[key].numpy() for answer in answers]) for key in keys))
