"""Trains one phase: epochs over batches, with checkpoints, a history, and the weights of the best epoch kept."""

import logging
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from components.errors import TrainingError
from trainer.averaging import WeightAverage
from trainer.checkpoint import CheckpointFolder, History
from trainer.cluster import Cluster
from trainer.config import TrainerConfig
from trainer.dataset import EpochOrder, Split, list_batch_starts, make_batches
from trainer.epoch_progress import EpochProgress
from trainer.mixing import Mixer
from trainer.model import LearningRate

_log = logging.getLogger('trainer')


class DivergedError(TrainingError):
    """The training loss became NaN or infinite."""


class Phase(NamedTuple):
    """A part of the training in which the same layers are trained throughout.

    name: The phase's name in logs, history and checkpoints.
    epochs: Number of passes over the train split.
    learning_rate: The peak of the learning rate schedule.
    """

    name: str
    epochs: int
    learning_rate: float


def make_schedule(config: TrainerConfig, phase: Phase, steps_per_epoch: int) -> LearningRate:
    """Makes the learning rate: constant, or a warm-up and then a cosine to zero (SGDR, Loshchilov and Hutter 2017)."""
    if config.schedule == 'constant':
        return phase.learning_rate
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else phase.learning_rate,
        decay_steps=max(1, phase.epochs * steps_per_epoch - warmup_steps),
        warmup_target=phase.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def compute_class_weights(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float32]:
    """Computes weights, float32 [num_classes], with which every class counts the same in the loss.

    The formula is that of scikit-learn's 'balanced': N / (num_classes * count of the class).
    """
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (num_classes * np.maximum(1, counts))).astype(np.float32)


def find_best_epoch(history: History) -> dict[str, Any]:
    """Returns the entry of the best epoch: that with the highest val_accuracy and, on a tie, the lowest val_loss.

    On a small val split many epochs have the same accuracy. The loss then tells which model is surer of it.

    Args:
      history: at least one entry.
    """
    return max(history, key=lambda entry: (entry['val_accuracy'], -entry['val_loss']))


class Recorder(keras.callbacks.Callback):
    """Records each epoch: first in the history, then the weights if they are the best so far, then a checkpoint.

    Args:
      phase: The phase that is trained.
      order: The order of the training rows; it is told which epoch begins.
      checkpoints: Where checkpoints are saved. None for a worker that is not the chief, which only keeps the history.
      best_weights: The file for the weights of the best epoch.
      history: The history of the epochs before a restart; new epochs are appended to it.
      average: Puts the average of the weights into the model for validation, and for the weights of the best epoch; the
        checkpoint holds the trained weights, from which the training goes on. None without averaging.
    """

    def __init__(
        self,
        phase: Phase,
        order: EpochOrder,
        checkpoints: CheckpointFolder | None,
        best_weights: str,
        history: History,
        average: WeightAverage | None = None,
    ):
        super().__init__()
        self.history = history
        self._phase, self._order = phase, order
        self._checkpoints, self._best_weights = checkpoints, best_weights
        self._average = average

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._order.epoch = epoch
        self._begin = self._end = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._end = time.monotonic()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        if self._average is not None:
            self._average.put_in(self.model, self._order.epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {} if logs is None else logs
        seconds = max(self._end - self._begin, 1e-9)
        # These go into `logs` itself, because the TensorBoard callback comes later and writes what it finds there.
        logs['images_per_s'] = self._order.count / seconds
        logs['seconds'] = time.monotonic() - self._begin
        logs['learning_rate'] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        metrics = {key: float(value) for key, value in logs.items()}
        entry: dict[str, Any] = {'phase': self._phase.name, 'epoch': epoch + 1, **metrics}
        self.history.append(entry)
        if self._checkpoints is not None and find_best_epoch(self.history) is entry:
            self.model.save_weights(self._best_weights)
        if self._average is not None:
            self._average.take_out(self.model)
        if self._checkpoints is None:
            return
        self._checkpoints.save(self.model, self.history)
        _log.info(
            '%s epoch %d of %d: accuracy %.3f, val_accuracy %.3f, %.1f images/s',
            *(self._phase.name, epoch + 1, self._phase.epochs),
            *(entry['accuracy'], entry['val_accuracy'], entry['images_per_s']),
            extra={'history_entry': entry, 'epochs': self._phase.epochs},
        )


class _EarlyStopping(keras.callbacks.Callback):
    """Ends a phase after `patience` epochs without a better val_accuracy.

    Unlike Keras' callback of that name it reads the history, which a restart does not change.
    """

    def __init__(self, recorder: Recorder, patience: int):
        super().__init__()
        self._recorder, self._patience = recorder, patience

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if has_stalled(self._recorder.history, self._patience):
            self.model.stop_training = True
            _log.info('stopped early: no better val_accuracy for %d epochs', self._patience)


def has_stalled(history: History, patience: int | None) -> bool:
    """Returns whether none of the last `patience` epochs has a better val_accuracy than the epochs before them.

    With `patience` None it is always False.
    """
    if patience is None or len(history) <= patience:
        return False
    accuracies: list[float] = [entry['val_accuracy'] for entry in history]
    return max(accuracies[-patience:]) <= max(accuracies[:-patience])


def _fit_epochs(
    model: keras.Model,
    config: TrainerConfig,
    phase: Phase,
    train: Split,
    val: Split,
    order: EpochOrder,
    cluster: Cluster,
    callbacks: list[Any],
) -> None:
    """Runs the epochs of a phase from `order.epoch` on; see `fit_phase`."""
    classes = model.output_shape[-1]
    weights = compute_class_weights(train.labels, classes) if config.class_weights == 'balanced' else None
    shares = classes if config.has_soft_labels() else None
    mixer = None if config.mix == 'none' else Mixer(config.mix, config.seed)
    batches = make_batches(train, order, config.batch_size, cluster.share, weights, num_classes=shares, mixer=mixer)
    val_order = EpochOrder(val.count, None)
    val_batches = make_batches(val, val_order, config.batch_size, cluster.share, num_classes=shares)
    steps, val_steps = (
        len(list_batch_starts(split.count, config.batch_size, cluster.share.replicas)) for split in (train, val)
    )
    try:
        model.fit(
            cluster.distribute(batches),
            steps_per_epoch=steps if cluster.is_distributed else None,
            validation_data=cluster.distribute(val_batches),
            validation_steps=val_steps if cluster.is_distributed else None,
            initial_epoch=order.epoch,
            epochs=phase.epochs,
            callbacks=callbacks,
            verbose=0,
        )
    except RuntimeError as error:
        if 'NaN' not in str(error):
            raise
        raise DivergedError(
            f'The training loss became NaN or infinite ({error}); lower trainer.learning_rate '
            f'({phase.learning_rate:g}) or set trainer.precision=float32.'
        ) from error


def fit_phase(
    model: keras.Model,
    config: TrainerConfig,
    phase: Phase,
    train: Split,
    val: Split,
    *,
    cluster: Cluster,
    fill: Callable[[], None],
    checkpoint_dir: str,
    log_dir: str,
) -> History:
    """Trains a phase and leaves the weights of its best epoch in `model`.

    If an earlier attempt at the same training was interrupted, it continues after that attempt's last complete epoch.

    Args:
      model: A model compiled for the phase and adapted to the cluster; changed in place.
      config: Settings of the batches, the class weights and early stopping.
      phase: The phase to train.
      train, val: The splits to train and to validate on; their rows are the model's inputs.
      cluster: The devices that train. Only its chief writes.
      fill: Fills the cache that the rows are read from. It is called before any row is read, and not at all when an
        earlier attempt has finished the phase.
      checkpoint_dir: Folder of the checkpoints, the same for every attempt at this training and for all workers.
      log_dir: Folder of TensorBoard's logs.

    Returns:
      The history. Each epoch has the metrics, learning_rate, images_per_s and seconds.

    Raises:
      DivergedError: The loss became NaN or infinite.
    """
    checkpoints = CheckpointFolder(os.path.join(checkpoint_dir, phase.name))
    history = checkpoints.restore(model)
    if history:
        _log.info('%s resumes after epoch %d of %d', phase.name, len(history), phase.epochs)
    if len(history) < phase.epochs and not has_stalled(history, config.early_stopping_patience):
        order = EpochOrder(train.count, config.seed, cluster.share.workers)
        order.epoch = len(history)
        average = None if config.weight_average == 'none' else WeightAverage(train, config.seed, config.batch_size)
        best_weights, saved_by_chief = checkpoints.best_weights, checkpoints if cluster.is_chief else None
        recorder = Recorder(phase, order, saved_by_chief, best_weights, history, average)
        counts = {'train_count': train.count, 'val_count': val.count, 'batch_size': config.batch_size}
        progress = EpochProgress(phase.name, phase.epochs, first_epoch=len(history), **counts)
        callbacks = [keras.callbacks.TerminateOnNaN(raise_error=True), recorder, progress]
        if cluster.is_chief:
            callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False))
        if config.early_stopping_patience is not None:
            callbacks.append(_EarlyStopping(recorder, config.early_stopping_patience))
        fill()
        _fit_epochs(model, config, phase, train, val, order, cluster, callbacks)
    cluster.wait_for_all()  # the chief may still be writing the best weights
    checkpoints.load_best(model)
    return history
