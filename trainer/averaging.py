"""Weight averaging: what is validated, kept and exported is an average of the trained weights over many steps.

Keras' optimizers can keep an exponential moving average of the weights that they train (`use_ema`). This module chooses
its memory, puts the average into the model for a while, and gives it BatchNorm statistics of its own: a BatchNorm's
moving statistics belong to the weights that were trained, and no average of them belongs to the average of the weights
(Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", section 3.1).
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from components.progress import track
from trainer.dataset import EpochOrder, Split, make_batches
from trainer.model import list_trained_batchnorms

# The average's memory as a share of a phase's steps. A memory of m steps smooths as much as a plain mean of 2 m - 1
# steps, here the last fifth of the phase. At its end, the initial weights have a weight of exp(-10).
_MEMORY_SHARE = 0.1
# Images that BatchNorm statistics are estimated from. In the head, where an image gives one value for each channel, the
# variance then has a standard error of sqrt(2 / 2048), 3%.
_STATISTICS_IMAGES = 2048


def choose_ema_momentum(steps: int) -> float:
    """Chooses the momentum of the average for a phase of `steps` steps: its memory is a tenth of them.

    The memory of an exponential moving average is 1 / (1 - momentum) steps.
    """
    return 1 - 1 / max(1.0, _MEMORY_SHARE * steps)


def estimate_statistics(model: keras.Model, batches: Iterable[Any]) -> None:
    """Sets the moving mean and variance of every trained BatchNorm to those of its inputs over some batches.

    The model runs as in training, with dropout, but its other state does not change. Nothing here goes through
    Grappler, whose bfloat16 rewrite would round the statistics.

    Args:
      model: A functional model; its trained BatchNorms are changed in place.
      batches: Batches of the model's inputs, [B, ...]; at least one.
    """
    norms = list_trained_batchnorms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    places = {id(variable): place for place, variable in enumerate(model.non_trainable_variables)}
    pairs = [(places[id(norm.moving_mean)], places[id(norm.moving_variance)]) for norm in norms]
    sums: list[list[npt.NDArray[np.float64]]] = [[np.zeros(1), np.zeros(1)] for _ in norms]
    count, state = 0, list(model.non_trainable_variables)
    try:
        for norm in norms:
            norm.momentum = 0.0  # the moving statistics become those of the batch
        for inputs in batches:
            # The state is handed on because it holds dropout's random generators too.
            _, state = model.stateless_call(model.trainable_variables, state, inputs, training=True)
            count += len(inputs)
            for total, pair in zip(sums, pairs, strict=True):
                mean, variance = (keras.ops.convert_to_numpy(state[place]).astype(np.float64) for place in pair)
                total[0] = total[0] + len(inputs) * mean
                total[1] = total[1] + len(inputs) * (variance + mean**2)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for norm, (first, second) in zip(norms, sums, strict=True):
        norm.moving_mean.assign(first / count)
        norm.moving_variance.assign(np.maximum(second / count - (first / count) ** 2, 0))


class WeightAverage:
    """Puts the average of the weights into a model, and the trained weights back.

    Args:
      train: The split that is trained on; its rows are the model's inputs, and this process can read all of them.
      seed: Seed of the training; together with the epoch it decides the images that statistics are estimated from.
      batch_size: Number of rows in a batch.
    """

    def __init__(self, train: Split, seed: int, batch_size: int):
        self._train, self._batch_size = train, batch_size
        self._order = EpochOrder(train.count, seed)
        self._trained: list[npt.NDArray[Any]] = []

    def put_in(self, model: keras.Model, epoch: int) -> None:
        """Puts the average into the model, with BatchNorm statistics that are estimated for it.

        Args:
          model: A compiled model whose optimizer keeps an average.
          epoch: The epoch that has been trained, from 0.
        """
        self._trained = model.get_weights()
        model.optimizer.finalize_variable_values(model.trainable_variables)
        estimate_statistics(model, self._read_inputs(epoch))

    def take_out(self, model: keras.Model) -> None:
        """Puts back the weights and the statistics that `put_in` found, bit for bit."""
        model.set_weights(self._trained)
        self._trained = []

    def _read_inputs(self, epoch: int) -> Iterator[Any]:
        self._order.epoch = epoch
        batches = make_batches(self._train, self._order, self._batch_size)
        batches = batches.take(math.ceil(_STATISTICS_IMAGES / self._batch_size))
        with track('BatchNorm statistics', min(self._train.count, len(batches) * self._batch_size)) as advance:
            for inputs, _ in batches:
                yield inputs
                advance(len(inputs))
