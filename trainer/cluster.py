"""Over which devices a training is spread, through tf.distribute, and the parts of that which Keras 3 leaves open."""

import contextlib
import json
import logging
import os
from typing import Literal, NamedTuple

import keras
import tensorflow as tf

from components.errors import TrainingError, to_one_line

StrategyName = Literal['one', 'mirrored', 'multi_worker']
_log = logging.getLogger('trainer')


class Share(NamedTuple):
    """Which rows are computed here.

    Replica r of R takes the places r, r + R, ... of an epoch, and worker w of W has the replicas w, w + W, ...; so it
    has the places w, w + W, ..., which in `trainer.dataset.EpochOrder` always hold the rows w, w + W, ... of the split.
    """

    workers: int = 1
    worker: int = 0
    replicas: int = 1

    @property
    def replicas_here(self) -> range:
        """The numbers of this worker's replicas."""
        return range(self.worker, self.replicas, self.workers)


def _read_cluster(tf_config: str) -> tuple[int, int]:
    """The number of workers that TF_CONFIG lists, and this one's index; the chief, where there is one, is worker 0.

    Raises:
      TrainingError: it is not what TensorFlow takes.
    """
    try:
        config = json.loads(tf_config or '{}')
        cluster, task = config.get('cluster', {}), config.get('task', {})
        chiefs = len(cluster.get('chief', []))
        workers = chiefs + len(cluster.get('worker', []))
        if workers < 2:
            return 1, 0
        if task['type'] not in ('chief', 'worker'):
            raise ValueError(f'the task is a {task["type"]}, and only chief and worker train')
        return workers, int(task['index']) + (chiefs if task['type'] == 'worker' else 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f'The environment variable TF_CONFIG does not describe a worker of a cluster ({to_one_line(error)}); see '
            'tf.distribute.MultiWorkerMirroredStrategy for its form, or unset it to train on one machine.'
        ) from error


def choose_strategy(wanted: str, workers: int, gpus: int) -> StrategyName:
    """Resolves `trainer.strategy`.

    Args:
      wanted: the setting; 'auto' takes all workers that TF_CONFIG lists, else all GPUs of this machine.
      workers: how many TF_CONFIG lists; 1 without it.
      gpus: on this machine.

    Raises:
      TrainingError: several workers are asked for, and TF_CONFIG lists none.
    """
    if wanted == 'multi_worker' and workers < 2:
        raise TrainingError(
            'trainer.strategy=multi_worker needs the environment variable TF_CONFIG with at least two workers, as '
            "Kubeflow's training operator and Vertex AI set it; set trainer.strategy=auto to train on this machine."
        )
    if wanted != 'auto':
        return wanted
    return 'multi_worker' if workers > 1 else 'mirrored' if gpus > 1 else 'one'


def _make_strategy(name: StrategyName) -> tf.distribute.Strategy:
    if name == 'one':
        return tf.distribute.get_strategy()
    if name == 'mirrored':
        devices = tf.config.list_logical_devices('GPU') or tf.config.list_logical_devices('CPU')
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise TrainingError(
            f'This process could not join the workers of TF_CONFIG ({to_one_line(error)}); the Trainer has to be the '
            'first in its process that uses TensorFlow, which it is not in a local run of the whole pipeline.'
        ) from error


class _MultiWorkerModel(keras.Model):
    """A functional model whose `fit` works under MultiWorkerMirroredStrategy as well, which in Keras 3.15 it does not.

    Keras builds on a batch that it reduces over all replicas, which fails for tuples, and it reduces the logs of
    a step over their first axis, which scalars do not have.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        (inputs,) = self.inputs
        features = keras.KerasTensor((None, *inputs.shape[1:]), inputs.dtype)
        labels, weights = keras.KerasTensor((None,), 'int64'), keras.KerasTensor((None,), 'float32')
        with self._distribute_strategy.scope():
            self._symbolic_build(data_batch=(features, labels, weights))

    def train_step(self, data):
        return {name: value[None] for name, value in super().train_step(data).items()}

    def test_step(self, data):
        return {name: value[None] for name, value in super().test_step(data).items()}


class Cluster:
    """The devices that train together.

    All workers run the same code on the same settings and see the same storage. Only worker 0, the chief, writes.

    Args:
      strategy: that spreads the training; tf.distribute's default one for a single device.
      share: what is computed here.
    """

    def __init__(self, strategy: tf.distribute.Strategy, share: Share):
        self.strategy, self.share = strategy, share

    @property
    def is_distributed(self) -> bool:
        """Whether there is more than one replica."""
        return self.share.replicas > 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what a training leaves behind."""
        return self.share.worker == 0

    def scope(self) -> contextlib.AbstractContextManager:
        """Where variables have to be made: a model's, and an optimizer's."""
        return self.strategy.scope() if self.is_distributed else contextlib.nullcontext()

    def adapt_model(self, model: keras.Model) -> keras.Model:
        """A model of the same layers that can be fitted here; call it, and compile, in the scope.

        Trained BatchNorms get the statistics of whole batches instead of those of a replica's rows.
        """
        if not self.is_distributed:
            return model
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = layer.trainable
        cls = _MultiWorkerModel if self.share.workers > 1 else keras.Model
        return cls(model.inputs, model.outputs, name=model.name)

    def distribute(self, batches: tf.data.Dataset):
        """What `fit` takes: this worker's batches, replica by replica, as `trainer.dataset.make_batches` gives them."""
        if not self.is_distributed:
            return batches
        return self.strategy.distribute_datasets_from_function(lambda context: batches)

    def wait_for_all(self) -> None:
        """Returns when every worker has come here."""
        if self.share.workers > 1:
            ones = self.strategy.run(tf.function(lambda: tf.constant(1.0)))
            self.strategy.reduce('SUM', ones, axis=None).numpy()


def join_cluster(wanted: str) -> Cluster:
    """Finds the devices that `trainer.strategy` names, and says which they are; waits until all workers are there.

    TensorFlow wants it before the process runs anything else when there are several workers.

    Raises:
      TrainingError: see `choose_strategy`; or TF_CONFIG is wrong.
    """
    workers, worker = _read_cluster(os.environ.get('TF_CONFIG', ''))
    name = choose_strategy(wanted, workers, len(tf.config.list_physical_devices('GPU')))
    strategy = _make_strategy(name)
    share = Share(replicas=strategy.num_replicas_in_sync)
    if name == 'multi_worker':
        share = Share(workers, worker, strategy.num_replicas_in_sync)
        _log.info('worker %d of %d, %d replicas in all', worker, workers, share.replicas)
    elif share.replicas > 1:
        _log.info('%d replicas on this machine', share.replicas)
    return Cluster(strategy, share)
