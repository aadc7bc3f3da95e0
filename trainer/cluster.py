"""Spreads a training over devices and machines with tf.distribute, and fills the gaps that Keras 3 leaves there."""

import contextlib
import faulthandler
import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf

from components.errors import TrainingError, to_one_line
from trainer.rendezvous import Workers, choose_join_timeout, meet_workers, read_workers

StrategyName = Literal['one', 'mirrored', 'multi_worker']
_CONNECT_TIMEOUT_S = 60.0  # for TensorFlow to connect workers that have all answered
_log = logging.getLogger('trainer')


class Share(NamedTuple):
    """The share of every epoch that this worker computes.

    A worker is a process, and has one replica of the model for each of its devices. The places in an epoch are dealt
    out in turn: replica r of R takes the places r, r + R, r + 2R, ... Worker w of W has the replicas w, w + W, ..., so
    it takes the places w, w + W, ... In `trainer.dataset.EpochOrder` these places hold the same rows in every epoch:
    the split's rows w, w + W, ...

    workers: Number of workers.
    worker: Index of this worker.
    replicas: Number of replicas of all workers together.
    """

    workers: int = 1
    worker: int = 0
    replicas: int = 1

    @property
    def replicas_here(self) -> range:
        """The indices of this worker's replicas."""
        return range(self.worker, self.replicas, self.workers)

    def get_rows(self, count: int) -> range:
        """Returns the numbers of the rows, out of `count`, that this worker trains on."""
        return range(self.worker, count, self.workers)


def choose_strategy(wanted: StrategyName | Literal['auto'], workers: int, gpus: int) -> StrategyName:
    """Resolves the setting `trainer.strategy`.

    Args:
      wanted: The setting. 'auto' means all workers that TF_CONFIG lists, or else all GPUs of this machine.
      workers: Number of workers that TF_CONFIG lists; 1 without TF_CONFIG.
      gpus: Number of GPUs of this machine.

    Raises:
      TrainingError: The setting is 'multi_worker', and TF_CONFIG does not list several workers.
    """
    if wanted == 'multi_worker' and workers < 2:
        raise TrainingError(
            'trainer.strategy=multi_worker needs the environment variable TF_CONFIG with at least two workers. Start '
            '`python -m pipeline worker` with it on each machine, and then run this command again; or set '
            'trainer.strategy=auto to train on this machine.'
        )
    if wanted != 'auto':
        return wanted
    return 'multi_worker' if workers > 1 else 'mirrored' if gpus > 1 else 'one'


@contextlib.contextmanager
def _end_if_stuck(timeout_s: float) -> Iterator[None]:
    """Ends the process if the context lasts longer, and gives SIGTERM back to Python's handler at its end.

    While TensorFlow connects to the other workers, it keeps Python's lock, so no thread and no handler of Python runs.
    It also takes SIGTERM for itself, and would do nothing with it.
    """
    handler = signal.getsignal(signal.SIGTERM)
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _make_strategy(name: StrategyName, workers: Workers, timeout_s: float) -> tf.distribute.Strategy:
    if name == 'one':
        return tf.distribute.get_strategy()
    if name == 'mirrored':
        devices = tf.config.list_logical_devices('GPU') or tf.config.list_logical_devices('CPU')
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    meet_workers(workers, timeout_s)
    _log.info('all %d workers have answered', workers.count)
    try:
        with _end_if_stuck(_CONNECT_TIMEOUT_S):
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise TrainingError(
            f'This process could not join the workers of TF_CONFIG ({to_one_line(error)}); the Trainer has to be the '
            'first in its process that uses TensorFlow.'
        ) from error


class _MultiWorkerModel(keras.Model):
    """A functional model that `fit` can train under MultiWorkerMirroredStrategy; Keras 3.15's own cannot be.

    Keras fails in two places. It builds the model on a batch that it reduces over all replicas, which fails for a
    batch that is a tuple. And it reduces the logs of a step over their first axis, which scalars do not have. So the
    model is built on symbolic tensors here, and every scalar in the logs gets an axis.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        (inputs,) = self.inputs
        features = keras.KerasTensor((None, *inputs.shape[1:]), inputs.dtype)
        labels, weights = keras.KerasTensor((None,), 'int64'), keras.KerasTensor((None,), 'float32')
        if isinstance(self.loss, keras.losses.CategoricalCrossentropy):  # see trainer.model.compile_model
            labels = keras.KerasTensor((None, *self.output_shape[1:]), 'float32')
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=(features, labels, weights))

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        return {name: value[None] for name, value in super().train_step(data).items()}

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        return {name: value[None] for name, value in super().test_step(data).items()}


class Cluster:
    """The devices that train one model together.

    All workers run the same code with the same settings, and see the same storage. Only worker 0, the chief, writes.

    Args:
      strategy: The strategy that spreads the training; for a single device, tf.distribute's default strategy.
      share: The share of the training that this worker computes.
    """

    def __init__(self, strategy: tf.distribute.Strategy, share: Share):
        self.strategy, self.share = strategy, share

    @property
    def is_distributed(self) -> bool:
        """Whether there is more than one replica."""
        return self.share.replicas > 1

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes checkpoints, logs and the trained model."""
        return self.share.worker == 0

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context in which the variables of a model and of an optimizer have to be created."""
        if not self.is_distributed:
            return contextlib.nullcontext()
        scope: contextlib.AbstractContextManager[Any] = self.strategy.scope()
        return scope

    def adapt_model(self, model: keras.Model) -> keras.Model:
        """Returns a model of the same layers that can be trained on these devices.

        Call this method, and compile the model, within `scope`. Trained BatchNorm layers compute their statistics over
        the whole batch instead of over the rows of one replica.
        """
        if not self.is_distributed:
            return model
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = layer.trainable
        cls = _MultiWorkerModel if self.share.workers > 1 else keras.Model
        return cls(model.inputs, model.outputs, name=model.name)

    def distribute(self, batches: tf.data.Dataset) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """Makes `fit` take one batch for each replica of this worker.

        Args:
          batches: The batches from `trainer.dataset.make_batches`, made for this worker's share.
        """
        if not self.is_distributed:
            return batches
        return self.strategy.distribute_datasets_from_function(lambda context: batches)

    def wait_for_all(self) -> None:
        """Waits until every worker has called this method."""
        if self.share.workers > 1:
            ones = self.strategy.run(tf.function(lambda: tf.constant(1.0)))
            self.strategy.reduce('SUM', ones, axis=None).numpy()


def join_cluster(wanted: StrategyName | Literal['auto'], timeout_s: float | None = None) -> Cluster:
    """Finds the devices that `trainer.strategy` names, and logs how many there are.

    With several workers it waits until all of them have started. TensorFlow then requires that nothing else has used it
    in this process before.

    Args:
      wanted: The setting `trainer.strategy`.
      timeout_s: The setting `trainer.join_timeout_s`.

    Raises:
      TrainingError: TF_CONFIG is wrong, or does not fit the setting (see `choose_strategy`), other workers have not
        come in time, or this process could not join them.
    """
    workers = read_workers(os.environ.get('TF_CONFIG', ''))
    name = choose_strategy(wanted, workers.count, len(tf.config.list_physical_devices('GPU')))
    strategy = _make_strategy(name, workers, choose_join_timeout(timeout_s))
    share = Share(replicas=strategy.num_replicas_in_sync)
    if name == 'multi_worker':
        share = Share(workers.count, workers.index, strategy.num_replicas_in_sync)
        _log.info('worker %d of %d, %d replicas in all', workers.index, workers.count, share.replicas)
    elif share.replicas > 1:
        _log.info('%d replicas on this machine', share.replicas)
    return Cluster(strategy, share)
