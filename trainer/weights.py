"""Loads the weights that a backbone starts from: the ImageNet weights through Keras, those of a file, or none."""

import shutil
import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from components.errors import WeightsError, to_one_line
from trainer.backbones import BACKBONES, get_builder, get_weights_file
from trainer.config import TrainerConfig


def load_weights(backbone: keras.Model, config: TrainerConfig) -> None:
    """Loads the weights that `trainer.weights` names into a backbone without top.

    Args:
      backbone: A backbone from `trainer.model.build_backbone`; changed in place.
      config: Its `weights` is 'imagenet', 'none', or the local path or gs:// URI of an HDF5 or `.weights.h5` file.

    Raises:
      WeightsError: The download failed, the file is missing or cannot be read, or its weights do not fit the backbone.
    """
    if config.weights == 'none':
        return
    if config.weights == 'imagenet':
        _load_imagenet(backbone, config)
        return
    with tempfile.TemporaryDirectory() as folder:
        _load_file(backbone, config, _fetch(config, Path(folder)))


def _describe_choices(config: TrainerConfig) -> str:
    return (
        'set trainer.weights to "imagenet" (needs internet access once), to the path or gs:// URI of a '
        f'{BACKBONES[config.backbone].builder} weights file without top (the official one is '
        f'{get_weights_file(config.backbone)}), or to "none" (random weights)'
    )


def _load_imagenet(backbone: keras.Model, config: TrainerConfig) -> None:
    """Loads the weights with Keras' own loader, which downloads them once into its cache and verifies the checksum."""
    try:
        pretrained = get_builder(config.backbone)(
            include_top=False, weights='imagenet', input_shape=backbone.input_shape[1:]
        )
    except Exception as error:  # an error of urllib or socket, or a plain Exception of Keras
        raise WeightsError(
            f"{BACKBONES[config.backbone].builder}'s ImageNet weights could not be loaded ({to_one_line(error)}); "
            f'{_describe_choices(config)}.'
        ) from error
    backbone.set_weights(pretrained.get_weights())


def _fetch(config: TrainerConfig, folder: Path) -> Path:
    """Copies the weights file to `folder` under its own name, by which Keras recognizes the format."""
    local = folder / Path(config.weights).name
    try:
        with tf.io.gfile.GFile(config.weights, 'rb') as remote, local.open('wb') as file:
            shutil.copyfileobj(remote, file)
    except (tf.errors.OpError, OSError) as error:
        raise WeightsError(
            f'The weights file {config.weights} cannot be read ({to_one_line(error)}); {_describe_choices(config)}.'
        ) from error
    return local


def _load_file(backbone: keras.Model, config: TrainerConfig, local: Path) -> None:
    try:
        backbone.load_weights(local)
    except Exception as error:  # an error of h5py, or a ValueError of Keras
        raise WeightsError(
            f'The weights file {config.weights} does not fit {BACKBONES[config.backbone].builder} without top at '
            f'{backbone.input_shape[1]} pixels: {to_one_line(error)}; {_describe_choices(config)}.'
        ) from error
