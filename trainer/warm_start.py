"""Begins a training with the weights of a pushed version, which BaseModelFinder gives to the Trainer."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from components.contract import BASE_MODEL_FILE, CONTRACT_FILE, KERAS_MODEL_FILE, DataContract, parse_contract
from components.errors import WeightsError, to_one_line
from trainer.model import describe_network


class BaseModel(NamedTuple):
    """A model to begin with."""

    folder: str
    """Path of its SavedModel."""
    version: str
    """The name of the version that it is."""

    def compute_digest(self) -> str:
        """Returns the SHA-256 of the Keras model, by which checkpoints tell one base model from another."""
        with tf.io.gfile.GFile(os.path.join(self.folder, KERAS_MODEL_FILE), 'rb') as file:
            return hashlib.sha256(file.read()).hexdigest()

    def read_contract(self) -> DataContract:
        """Reads the classes that it was trained for."""
        with tf.io.gfile.GFile(os.path.join(self.folder, CONTRACT_FILE)) as file:
            return parse_contract(json.loads(file.read()))


def find_base_model(base_model: str | None) -> BaseModel | None:
    """Returns the model to begin with; None for a training that begins with `trainer.weights`.

    Args:
      base_model: TFX's argument of that name: BaseModelFinder's SavedModel, which is missing if nothing was serving;
        None without a warm start.

    Raises:
      WeightsError: BaseModelFinder's artifact is not there.
    """
    if base_model is None:
        return None
    path = os.path.join(os.path.dirname(base_model), BASE_MODEL_FILE)
    try:
        with tf.io.gfile.GFile(path) as file:
            version = json.loads(file.read())['version']
    except (tf.errors.OpError, ValueError, KeyError) as error:
        raise WeightsError(
            f'The training is to begin with a pushed version, and {path} cannot be read ({to_one_line(error)}); it is '
            "a file of BaseModelFinder's output `model`. Provide that, or set trainer.warm_start=none."
        ) from error
    return None if version is None else BaseModel(base_model, version)


def load_base_model(model: keras.Model, base: BaseModel, contract: DataContract) -> None:
    """Gives a model all weights of the base model.

    Args:
      model: From `trainer.model.build_model`; changed in place.
      base: The model to begin with.
      contract: The classes of the training.

    Raises:
      WeightsError: The base model has a different backbone, head or classes, or cannot be read. The message names what
        differs.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / KERAS_MODEL_FILE.name
        tf.io.gfile.copy(os.path.join(base.folder, KERAS_MODEL_FILE), str(local))
        try:
            found = keras.models.load_model(local, compile=False)
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(
                f'The Keras model of version {base.version} cannot be read ({to_one_line(error)}); set '
                'trainer.warm_start=none.'
            ) from error
    wanted, given = describe_network(model), describe_network(found)
    differences = [
        f'trainer.{name} is {_format(given[name])} there and {_format(value)} here'
        for name, value in wanted.items()
        if given[name] != value
    ]
    classes = base.read_contract().class_names
    if classes != contract.class_names:
        differences.append(f'the classes are {_format(classes)} there and {_format(contract.class_names)} here')
    if differences:
        raise WeightsError(
            f'The training cannot begin with the weights of version {base.version}, because '
            f'{"; ".join(differences)}. Set the same values, or trainer.warm_start=none.'
        )
    model.set_weights(found.get_weights())


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return ','.join(map(str, value)) or 'empty'
    return str(value).lower() if isinstance(value, bool) else str(value)
