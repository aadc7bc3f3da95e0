"""Checkpoints that survive a kill at any moment: a training continues after its last complete epoch.

Keras' BackupAndRestore callback is not enough for that. It overwrites the weights and the epoch number in the same
files, one after the other, so a kill between the two leaves weights that do not belong to the epoch number. And Keras'
weights files do not contain the state of dropout's random generators. Here every epoch is a folder that is renamed
into place once it is complete, and the random generators are saved in it too. An object store cannot rename; there an
epoch is complete when its state file is there, because that file is written last.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.errors import StorageError, TrainingError, to_one_line
from components.places import Place, explain_errors, fetch, locate, remove_folder

History = list[dict[str, Any]]
"""One dict for each epoch: 'phase' (str), 'epoch' (int, from 1) and the epoch's metrics (float), by name."""

_WEIGHTS_FILE = 'state.weights.h5'  # holds the optimizer's state too
_BEST_FILE = 'best.weights.h5'  # beside the folders of the epochs
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
      folder: A path, or the URI of a folder in an object store (s3:// or gs://).

    Raises:
      StorageError: The folder cannot be made, or the object store does not respond.
    """

    def __init__(self, folder: str):
        self._folder = locate(folder)
        if isinstance(self._folder, Path):
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(
                    f'The folder for checkpoints {folder} cannot be made: {to_one_line(error)}. Make its parent '
                    'writable, or name a different folder with trainer.checkpoint_dir.'
                ) from error
            self._local = self._folder
        else:
            self._temporary = tempfile.TemporaryDirectory()  # removed with this object
            self._local = Path(self._temporary.name)

    @property
    def best_weights(self) -> str:
        """The local file to which the weights of the best epoch are saved, before that epoch's checkpoint is."""
        return str(self._local / _BEST_FILE)

    def _list_epochs(self) -> list[int]:
        if not self._folder.exists():  # an object store has no empty folders
            return []
        numbers = [each.name.removeprefix('epoch-') for each in self._folder.iterdir() if each.name[:6] == 'epoch-']
        return sorted(
            int(number)
            for number in numbers
            if number.isdigit() and (self._folder / f'epoch-{number}' / _STATE_FILE).exists()
        )

    def save(self, model: keras.Model, history: History) -> None:
        """Saves the state after epoch `len(history)`, then removes the checkpoint of the epoch before.

        Args:
          model: A compiled model; its weights, optimizer and random generators are saved.
          history: The history of the phase up to this epoch.

        Raises:
          StorageError: The object store does not respond.
        """
        epoch = len(history)
        # The name is always the same, so that repeated attempts on a full disk leave only one such folder behind.
        staging = self._local / 'writing'
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir()
        model.save_weights(str(staging / _WEIGHTS_FILE))
        seeds = [variable.numpy().tolist() for variable in _list_random_states(model)]
        (staging / _STATE_FILE).write_text(json.dumps({'history': history, 'seeds': seeds}))
        with explain_errors(self._folder):
            earlier = self._list_epochs()
            self._publish(staging, self._folder / f'epoch-{epoch:05d}')
            for old in earlier:
                if old != epoch:
                    _remove_epoch(self._folder / f'epoch-{old:05d}')

    def _publish(self, staging: Path, target: Place) -> None:
        """Makes a complete local folder the folder of an epoch."""
        if isinstance(target, Path):
            if target.exists():  # a half-written one, or one that is trained again
                shutil.rmtree(target)
            staging.rename(target)
            return
        best = self._local / _BEST_FILE
        if best.exists():  # it was saved in this epoch, because after an upload it is removed
            (target.parent / _BEST_FILE).upload_from(best, force_overwrite_to_cloud=True)
            best.unlink()
        for name in (_WEIGHTS_FILE, _STATE_FILE):
            (target / name).upload_from(staging / name, force_overwrite_to_cloud=True)

    def restore(self, model: keras.Model) -> History:
        """Loads the newest complete epoch into a compiled model.

        Returns:
          The history up to that epoch; empty when there is no checkpoint.

        Raises:
          TrainingError: The checkpoint cannot be read.
          StorageError: The object store does not respond.
        """
        with explain_errors(self._folder):
            epochs = self._list_epochs()
            if not epochs:
                return []
            folder = self._folder / f'epoch-{epochs[-1]:05d}'
            model.optimizer.build(model.trainable_variables)
            with fetch(folder / _WEIGHTS_FILE) as weights, fetch(folder / _STATE_FILE) as state_file:
                try:
                    model.load_weights(str(weights))
                    state = json.loads(state_file.read_text())
                    for variable, seed in zip(_list_random_states(model), state['seeds'], strict=True):
                        variable.assign(np.array(seed, variable.dtype))
                    history: History = state['history']
                except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
                    raise TrainingError(
                        f'The checkpoint {folder} is damaged ({to_one_line(error)}); remove it and run again.'
                    ) from error
        return history

    def load_best(self, model: keras.Model) -> None:
        """Loads the weights of the best epoch, which were saved to `best_weights`, by this attempt or an earlier one.

        Raises:
          StorageError: The object store does not respond.
        """
        with explain_errors(self._folder), fetch(self._folder / _BEST_FILE) as weights:
            model.load_weights(str(weights))


def _remove_epoch(folder: Place) -> None:
    """Removes the state file first, so that a kill in between leaves no checkpoint that looks complete."""
    (folder / _STATE_FILE).unlink()
    remove_folder(folder)


def locate_checkpoints(model_run_dir: str, key: str, checkpoint_dir: str | None = None) -> str:
    """Returns the folder for a training's checkpoints, the same for every attempt at it.

    Args:
      model_run_dir: `<pipeline root>/Trainer/model_run/<execution>`, a path or a URI; every attempt is an execution of
        its own.
      key: The training's key, from `compute_training_key`.
      checkpoint_dir: The setting `trainer.checkpoint_dir`; None for a folder beside the Trainer's outputs.
    """
    beside = os.path.join(os.path.dirname(os.path.dirname(model_run_dir.rstrip('/'))), 'checkpoints')
    return os.path.join(checkpoint_dir or beside, key)


def remove_checkpoints(folder: str) -> None:
    """Removes the checkpoints of a finished training.

    The state files are removed first, so that a kill in between leaves no checkpoint that looks complete.

    Args:
      folder: The folder from `locate_checkpoints`, which holds a folder for each phase.

    Raises:
      StorageError: The object store does not respond.
    """
    place = locate(folder)
    with explain_errors(place):
        states: list[Place] = [*place.glob(f'*/*/{_STATE_FILE}')]
        for state in states:
            state.unlink()
        remove_folder(place)
