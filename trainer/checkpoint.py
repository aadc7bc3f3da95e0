"""Checkpoints that survive a kill at any moment: a training goes on at the epoch after the last whole one.

Keras' BackupAndRestore writes the weights and the epoch's number one after the other into the same files, so a kill
between the two resumes at an epoch that the weights are not of; and Keras leaves the state of dropout's random
generators out of a weights file. Here an epoch is a folder that is renamed into place, and holds those too.
"""

import hashlib
import json
import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from components.errors import TrainingError, to_one_line

_WEIGHTS_FILE = 'state.weights.h5'  # the optimizer's state too
_STATE_FILE = 'state.json'  # history and random generators; written last, so a folder that has it is whole


def compute_training_key(settings: dict, file_patterns: list[str], transform_graph: str) -> str:
    """What two trainings must share for one to go on where the other stopped: settings, source, data and graph."""
    files = sorted(file for pattern in file_patterns for file in tf.io.gfile.glob(pattern))
    described = {
        'settings': settings,
        'files': [(file, tf.io.gfile.stat(file).length) for file in files],
        'transform_graph': transform_graph,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _list_random_states(model: keras.Model) -> list[keras.Variable]:
    """The states of the model's random generators, dropout's, in the order of its layers."""
    return [variable for variable in model.variables if variable.path.endswith('seed_generator_state')]


class CheckpointFolder:
    """The checkpoints of one training phase: `epoch-00003/` holds the state after the third epoch.

    Args:
      folder: a local path or a URI that TensorFlow opens. A rename is atomic on a local file system alone; elsewhere
        the state file, which is written last, tells whether an epoch is whole.
    """

    def __init__(self, folder: str):
        self._folder = folder
        tf.io.gfile.makedirs(folder)

    def _list_epochs(self) -> list[int]:
        names = [name.rstrip('/') for name in tf.io.gfile.listdir(self._folder)]
        whole = [name for name in names if name.startswith('epoch-') and name.removeprefix('epoch-').isdigit()]
        return sorted(
            int(name.removeprefix('epoch-'))
            for name in whole
            if tf.io.gfile.exists(os.path.join(self._folder, name, _STATE_FILE))
        )

    def save(self, model: keras.Model, history: list[dict]) -> None:
        """Saves the state after epoch `len(history)` and removes the one before.

        Args:
          model: compiled; its weights, optimizer and random generators are saved.
          history: an entry an epoch.
        """
        epoch = len(history)
        staging = os.path.join(self._folder, 'writing')  # one name, so that attempts on a full disk leave one behind
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

    def restore(self, model: keras.Model) -> list[dict]:
        """Loads the newest whole epoch into a compiled model; returns its history, empty where there is none.

        Raises:
          TrainingError: the checkpoint cannot be read.
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
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            raise TrainingError(
                f'The checkpoint {folder} is damaged ({to_one_line(error)}); remove it and run again.'
            ) from error
        return state['history']


def locate_checkpoints(model_run_dir: str, key: str) -> str:
    """The folder for a training's checkpoints: beside the Trainer's outputs, the same for every attempt.

    Args:
      model_run_dir: `<pipeline root>/Trainer/model_run/<execution>`; another attempt has another execution.
      key: from `compute_training_key`.
    """
    return (
        str(Path(model_run_dir).parents[1] / 'checkpoints' / key)
        if '://' not in model_run_dir
        else (f'{model_run_dir.rstrip("/").rsplit("/", 2)[0]}/checkpoints/{key}')
    )


def remove_checkpoints(folder: str) -> None:
    """Removes a finished training's checkpoints; a kill on the way leaves none that would be taken for whole.

    Args:
      folder: from `locate_checkpoints`, with a folder a phase.
    """
    for file in tf.io.gfile.glob(os.path.join(folder, '*', '*', _STATE_FILE)):
        tf.io.gfile.remove(file)
    tf.io.gfile.rmtree(folder)
