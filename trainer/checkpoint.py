"""Checkpoints that survive a kill at any moment: a training continues after its last complete epoch.

Keras' BackupAndRestore callback is not enough for that. It overwrites the weights and the epoch number in the same
files, one after the other, so a kill between the two leaves weights that do not belong to the epoch number. And Keras'
weights files do not contain the state of dropout's random generators. Here every epoch is a folder that is renamed
into place once it is complete, and the random generators are saved in it too.
"""

import hashlib
import json
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.errors import TrainingError, to_one_line

History = list[dict[str, Any]]
"""One dict for each epoch: 'phase' (str), 'epoch' (int, from 1) and the epoch's metrics (float), by name."""

_WEIGHTS_FILE = 'state.weights.h5'  # holds the optimizer's state too
_STATE_FILE = 'state.json'  # history and random generators; written last, so a folder that contains it is complete


def compute_training_key(settings: dict[str, Any], file_patterns: list[str], transform_graph: str) -> str:
    """Returns a key that is the same for two trainings only if one may continue from the other's checkpoints.

    Args:
      settings: The Trainer's `custom_config`: all its settings and the digest of its source.
      file_patterns: Globs of the training data; names and sizes of the files become part of the key.
      transform_graph: Path of the Transform graph.
    """
    files = sorted(file for pattern in file_patterns for file in tf.io.gfile.glob(pattern))
    described = {
        'settings': settings,
        'files': [(file, tf.io.gfile.stat(file).length) for file in files],
        'transform_graph': transform_graph,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _list_random_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the states of the random generators of the model's dropout layers, in the order of the layers."""
    return [variable for variable in model.variables if variable.path.endswith('seed_generator_state')]


class CheckpointFolder:
    """The checkpoints of one training phase: the folder `epoch-00003` holds the state after the third epoch.

    Args:
      folder: A local path, or a URI that TensorFlow can open. Only on a local file system is a rename atomic; elsewhere
        an epoch counts as complete when its state file is there, because that file is written last.
    """

    def __init__(self, folder: str):
        self._folder = folder
        tf.io.gfile.makedirs(folder)

    def _list_epochs(self) -> list[int]:
        names = [name.rstrip('/') for name in tf.io.gfile.listdir(self._folder)]
        numbers = [name.removeprefix('epoch-') for name in names if name.startswith('epoch-')]
        return sorted(
            int(number)
            for number in numbers
            if number.isdigit() and tf.io.gfile.exists(os.path.join(self._folder, f'epoch-{number}', _STATE_FILE))
        )

    def save(self, model: keras.Model, history: History) -> None:
        """Saves the state after epoch `len(history)`, then removes the checkpoint of the epoch before.

        Args:
          model: A compiled model; its weights, optimizer and random generators are saved.
          history: The history of the phase up to this epoch.
        """
        epoch = len(history)
        # The name is always the same, so that repeated attempts on a full disk leave only one such folder behind.
        staging = os.path.join(self._folder, 'writing')
        if tf.io.gfile.exists(staging):
            tf.io.gfile.rmtree(staging)
        tf.io.gfile.makedirs(staging)
        model.save_weights(os.path.join(staging, _WEIGHTS_FILE))
        seeds = [variable.numpy().tolist() for variable in _list_random_states(model)]
        with tf.io.gfile.GFile(os.path.join(staging, _STATE_FILE), 'w') as file:
            json.dump({'history': history, 'seeds': seeds}, file)
        earlier = self._list_epochs()
        tf.io.gfile.rename(staging, os.path.join(self._folder, f'epoch-{epoch:05d}'), overwrite=True)
        for old in earlier:
            if old != epoch:
                tf.io.gfile.rmtree(os.path.join(self._folder, f'epoch-{old:05d}'))

    def restore(self, model: keras.Model) -> History:
        """Loads the newest complete epoch into a compiled model.

        Returns:
          The history up to that epoch; empty when there is no checkpoint.

        Raises:
          TrainingError: The checkpoint cannot be read.
        """
        epochs = self._list_epochs()
        if not epochs:
            return []
        folder = os.path.join(self._folder, f'epoch-{epochs[-1]:05d}')
        model.optimizer.build(model.trainable_variables)
        try:
            model.load_weights(os.path.join(folder, _WEIGHTS_FILE))
            with tf.io.gfile.GFile(os.path.join(folder, _STATE_FILE)) as file:
                state = json.load(file)
            for variable, seed in zip(_list_random_states(model), state['seeds'], strict=True):
                variable.assign(np.array(seed, variable.dtype))
            history: History = state['history']
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            raise TrainingError(
                f'The checkpoint {folder} is damaged ({to_one_line(error)}); remove it and run again.'
            ) from error
        return history


def locate_checkpoints(model_run_dir: str, key: str) -> str:
    """Returns the folder for a training's checkpoints: beside the Trainer's outputs, the same for every attempt.

    Args:
      model_run_dir: `<pipeline root>/Trainer/model_run/<execution>`, a path or a URI; every attempt is an execution of
        its own.
      key: The training's key, from `compute_training_key`.
    """
    return os.path.join(os.path.dirname(os.path.dirname(model_run_dir.rstrip('/'))), 'checkpoints', key)


def remove_checkpoints(folder: str) -> None:
    """Removes the checkpoints of a finished training.

    The state files are removed first, so that a kill in between leaves no checkpoint that looks complete.

    Args:
      folder: The folder from `locate_checkpoints`, which holds a folder for each phase.
    """
    for file in tf.io.gfile.glob(os.path.join(folder, '*', '*', _STATE_FILE)):
        tf.io.gfile.remove(file)
    tf.io.gfile.rmtree(folder)
