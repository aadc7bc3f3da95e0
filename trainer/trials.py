"""TrialTrainer: trains one trial of the Tuner after the other, above frozen layers that run once for all of them."""

import contextlib
import os
import random
from typing import Any, NamedTuple

import keras

from trainer.checkpoint import History, remove_checkpoints
from trainer.cluster import join_cluster
from trainer.config import TrainerConfig
from trainer.dataset import Split
from trainer.device import Device
from trainer.fit import DivergedError
from trainer.frozen_pass import FrozenPass
from trainer.model import build_backbone, build_model
from trainer.search_space import apply_hyperparameters
from trainer.train import train_model
from trainer.weights import load_weights


class Data(NamedTuple):
    """What all trials are trained on.

    train, val: The splits; their rows are preprocessed images.
    num_classes: Number of classes.
    """

    train: Split
    val: Split
    num_classes: int


class TrialTrainer:
    """Trains trials as the Trainer would train their configurations; what is frozen is built and run only once.

    Args:
      config: The configuration whose fields the hyper-parameters replace.
      data: What to train on.
      device: The device to train on.
      checkpoint_dir: Folder of the checkpoints, the same for every attempt at this search.
      run_dir: Local folder for TensorBoard's logs and a cache on disk.
      stack: Ends with the search.
    """

    def __init__(
        self,
        config: TrainerConfig,
        data: Data,
        device: Device,
        checkpoint_dir: str,
        run_dir: str,
        stack: contextlib.ExitStack,
    ):
        self.frozen = FrozenPass(stack)
        self._config, self._data, self._device = config, data, device
        self._checkpoint_dir, self._run_dir = checkpoint_dir, run_dir
        keras.utils.set_random_seed(config.seed)
        self._backbone = build_backbone(config)
        load_weights(self._backbone, config)
        self._weights = self._backbone.get_weights()
        self._random_state = random.getstate()  # Keras draws the seeds of a head's weights from it

    def train(self, name: str, settings: dict[str, Any]) -> History:
        """Trains a trial, or goes on with it after its last complete epoch.

        Args:
          name: Name of the trial's folders.
          settings: Its hyper-parameters by the name of the setting.

        Returns:
          The history of its epochs.

        Raises:
          DivergedError: The loss became NaN or infinite.
        """
        config = apply_hyperparameters(self._config, settings)
        self._backbone.set_weights(self._weights)
        random.setstate(self._random_state)
        model = build_model(config, self._backbone, self._data.num_classes)
        checkpoint_dir = os.path.join(self._checkpoint_dir, name)
        try:
            history, _ = train_model(
                *(model, self._backbone, config, self._device, join_cluster('one'), self._data.train, self._data.val),
                checkpoint_dir=checkpoint_dir,
                run_dir=os.path.join(self._run_dir, name),
                prepare=self.frozen.prepare,
            )
        except DivergedError:
            remove_checkpoints(checkpoint_dir)
            raise
        remove_checkpoints(checkpoint_dir)
        return history
