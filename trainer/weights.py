"""The weights a backbone starts from: ImageNet's through Keras, a file, or none."""

import shutil
import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from components.errors import WeightsError, to_one_line

_CHOICES = (
    'set trainer.weights to "imagenet" (needs internet access once), to the path or gs:// URI of a ResNet50 '
    'weights file without top, or to "none" (random weights)'
)


def load_weights(backbone: keras.Model, weights: str) -> None:
    """Loads the weights named by `trainer.weights` into a ResNet50 without top.

    Args:
      backbone: from `trainer.model.build_backbone`; changed in place.
      weights: 'imagenet', 'none', or a local path or gs:// URI of an HDF5 or `.weights.h5` file.

    Raises:
      WeightsError: the download failed, the file is not there or unreadable, or a shape does not match.
    """
    if weights == 'none':
        return
    if weights == 'imagenet':
        _load_imagenet(backbone)
        return
    with tempfile.TemporaryDirectory() as folder:
        _load_file(backbone, weights, _fetch(weights, Path(folder)))


def _load_imagenet(backbone: keras.Model) -> None:
    """Keras' own loader: downloads once into Keras' cache and verifies the checksum."""
    try:
        pretrained = keras.applications.ResNet50(
            include_top=False, weights='imagenet', input_shape=backbone.input_shape[1:]
        )
    except Exception as error:  # urllib's, socket's, or Keras' plain Exception, by what went wrong
        raise WeightsError(f'The ImageNet weights could not be had ({to_one_line(error)}); {_CHOICES}.') from error
    backbone.set_weights(pretrained.get_weights())


def _fetch(weights: str, folder: Path) -> Path:
    """A local copy under the file's own name: Keras tells the format by the name."""
    local = folder / Path(weights).name
    try:
        with tf.io.gfile.GFile(weights, 'rb') as remote, local.open('wb') as file:
            shutil.copyfileobj(remote, file)
    except (tf.errors.OpError, OSError) as error:
        raise WeightsError(f'The weights file {weights} cannot be read ({to_one_line(error)}); {_CHOICES}.') from error
    return local


def _load_file(backbone: keras.Model, weights: str, local: Path) -> None:
    try:
        backbone.load_weights(local)
    except Exception as error:  # h5py's, Keras' ValueError, by what is wrong with the file
        raise WeightsError(
            f'The weights file {weights} does not fit ResNet50 without top at {backbone.input_shape[1]} pixels: '
            f'{to_one_line(error)}; {_CHOICES}.'
        ) from error
