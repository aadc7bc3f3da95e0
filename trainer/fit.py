"""One phase of training: epochs over batches, with checkpoints, the best weights kept, and a history."""

import logging
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from components import features
from components.errors import TrainingError
from trainer.checkpoint import CheckpointFolder
from trainer.cluster import Cluster
from trainer.config import TrainerConfig
from trainer.dataset import EpochOrder, Rows, list_batch_starts, make_batches

_log = logging.getLogger('trainer')


class Phase(NamedTuple):
    """What to train in one go.

    name: in logs, history and checkpoints.
    epochs: passes over the training rows.
    learning_rate: the peak of the schedule.
    """

    name: str
    epochs: int
    learning_rate: float


class Examples(NamedTuple):
    """A split to fit on. features: reads the rows; labels: int64 [N]."""

    features: Rows
    labels: np.ndarray


def make_schedule(config: TrainerConfig, phase: Phase, steps_per_epoch: int):
    """The learning rate by step: constant, or warm-up and a cosine to zero (Loshchilov and Hutter 2017, SGDR)."""
    if config.schedule == 'constant':
        return phase.learning_rate
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else phase.learning_rate,
        decay_steps=max(1, phase.epochs * steps_per_epoch - warmup_steps),
        warmup_target=phase.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def compute_class_weights(labels: np.ndarray) -> np.ndarray:
    """Weights, float32 [classes], that make every class count the same.

    N / (classes * count), as scikit-learn's 'balanced' has it.
    """
    counts = np.bincount(labels, minlength=features.NUM_CLASSES)
    return (len(labels) / (features.NUM_CLASSES * np.maximum(1, counts))).astype(np.float32)


class Recorder(keras.callbacks.Callback):
    """Keeps the history, the best weights and the checkpoints, in that order, after each epoch.

    Args:
      phase: what is trained.
      order: of the training rows; told which epoch begins.
      checkpoints: where the state goes; None for a worker that is not the chief, which keeps the history alone.
      best_weights: file that keeps the best epoch's weights.
      history: entries of epochs before a restart; appended to.
    """

    def __init__(self, phase, order: EpochOrder, checkpoints, best_weights: str, history: list[dict]):
        super().__init__()
        self.history = history
        self._phase, self._order = phase, order
        self._checkpoints, self._best_weights = checkpoints, best_weights

    def on_epoch_begin(self, epoch, logs=None):
        self._order.epoch = epoch
        self._begin = self._end = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self._end = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        best = max((entry['val_accuracy'] for entry in self.history), default=-1.0)
        seconds = max(self._end - self._begin, 1e-9)
        logs['images_per_s'] = self._order.count / seconds  # in the logs themselves, for TensorBoard, which comes after
        logs['seconds'] = time.monotonic() - self._begin
        logs['learning_rate'] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        entry = {'phase': self._phase.name, 'epoch': epoch + 1} | {key: float(value) for key, value in logs.items()}
        self.history.append(entry)
        if self._checkpoints is None:
            return
        if entry['val_accuracy'] > best:
            self.model.save_weights(self._best_weights)
        self._checkpoints.save(self.model, self.history)
        _log.info(
            '%s epoch %d of %d: accuracy %.3f, val_accuracy %.3f, %.1f images/s',
            *(self._phase.name, epoch + 1, self._phase.epochs),
            *(entry['accuracy'], entry['val_accuracy'], entry['images_per_s']),
        )


class _EarlyStopping(keras.callbacks.Callback):
    """Stops after `patience` epochs without a better val_accuracy; reads the history, so a restart changes nothing."""

    def __init__(self, recorder: Recorder, patience: int):
        super().__init__()
        self._recorder, self._patience = recorder, patience

    def on_epoch_end(self, epoch, logs=None):
        if has_stalled(self._recorder.history, self._patience):
            self.model.stop_training = True
            _log.info('no better val_accuracy for %d epochs: stopped', self._patience)


def has_stalled(history: list[dict], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no better val_accuracy than the ones before; None never stalls."""
    if patience is None or len(history) <= patience:
        return False
    accuracies = [entry['val_accuracy'] for entry in history]
    return max(accuracies[-patience:]) <= max(accuracies[:-patience])


def fit_phase(
    model: keras.Model,
    config: TrainerConfig,
    phase: Phase,
    train: Examples,
    val: Examples,
    *,
    cluster: Cluster,
    fill: Callable[[], None],
    checkpoint_dir: str,
    log_dir: str,
) -> list[dict]:
    """Trains, or goes on where an earlier attempt stopped, and leaves the best epoch's weights in `model`.

    Args:
      model: compiled for the phase, adapted to the cluster; changed in place.
      config: batches, early stopping and class weights.
      phase: what to train.
      train, val: what on.
      cluster: which devices train; its chief alone writes.
      fill: called before any row is read, and not at all where the phase was finished in an earlier attempt.
      checkpoint_dir: the same for every attempt at this phase, and for all workers.
      log_dir: where TensorBoard's logs go.

    Returns:
      The history: a dict an epoch with the metrics, learning_rate, images_per_s and seconds.

    Raises:
      TrainingError: the loss is not a number.
    """
    checkpoints = CheckpointFolder(os.path.join(checkpoint_dir, phase.name))
    best_weights = os.path.join(checkpoint_dir, f'{phase.name}-best.weights.h5')
    history = checkpoints.restore(model)
    if history:
        _log.info('%s goes on after epoch %d of %d', phase.name, len(history), phase.epochs)
    order = EpochOrder(len(train.labels), config.seed, cluster.share.workers)
    order.epoch = len(history)
    recorder = Recorder(phase, order, checkpoints if cluster.is_chief else None, best_weights, history)
    callbacks = [keras.callbacks.TerminateOnNaN(raise_error=True), recorder]
    if cluster.is_chief:
        callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False))
    if config.early_stopping_patience is not None:
        callbacks.append(_EarlyStopping(recorder, config.early_stopping_patience))
    if len(history) < phase.epochs and not has_stalled(history, config.early_stopping_patience):
        fill()
        weights = compute_class_weights(train.labels) if config.class_weights == 'balanced' else None
        batches = make_batches(*train, order, config.batch_size, cluster.share, weights)
        val_order = EpochOrder(len(val.labels), None)
        val_batches = make_batches(*val, val_order, config.batch_size, cluster.share)
        steps, val_steps = (
            len(list_batch_starts(rows.count, config.batch_size, cluster.share.replicas)) for rows in (order, val_order)
        )
        try:
            model.fit(
                cluster.distribute(batches),
                steps_per_epoch=steps if cluster.is_distributed else None,
                validation_data=cluster.distribute(val_batches),
                validation_steps=val_steps if cluster.is_distributed else None,
                initial_epoch=len(history),
                epochs=phase.epochs,
                callbacks=callbacks,
                verbose=0,
            )
        except RuntimeError as error:
            if 'NaN' not in str(error):
                raise
            raise TrainingError(
                f'The training loss became NaN or infinite ({error}); lower trainer.learning_rate '
                f'({phase.learning_rate:g}) or set trainer.precision=float32.'
            ) from error
    cluster.wait_for_all()  # until the chief has written them
    model.load_weights(best_weights)
    return history
