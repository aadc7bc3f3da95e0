"""Temperature scaling: divides the logits of the trained model by one number, so that its confidence fits its accuracy.

After Guo et al. (2017), "On Calibration of Modern Neural Networks": the temperature is the one with which the model's
probabilities on `val` have the least negative log-likelihood. It changes no predicted class. It is folded into the
weights of the last layer, so nothing that loads the model has to know of it.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from components import features
from components.progress import track
from trainer.dataset import EpochOrder, Split, make_batches
from trainer.inference_graph import InferenceGraph

BATCH = 32  # images that the model takes at once
BINS = 15  # of equal width, as in Guo et al. (2017); the model gate's calibration error has as many

# A model that is right on every val image has no best temperature: the lower, the better. The bounds keep it finite.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.2, 5.0


class Calibration(NamedTuple):
    """What temperature scaling did to a model."""

    temperature: float
    """The number by which the logits were divided."""
    error_before: float
    """The expected calibration error on the val split before the division, 0-1."""
    error: float
    """The same after it. It flatters the model a little, because the temperature was fitted on these images."""


def compute_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Computes the probabilities of logits, [N, classes]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def measure_calibration_error(probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64]) -> float:
    """Measures the expected calibration error, 0-1: how much confidence and accuracy differ, on average over BINS bins.

    It is the model gate's (components/model_gate/metrics.py), and a test compares the two.

    Args:
      probabilities: [N, classes], N at least 1.
      labels: Class labels, [N].
    """
    confidence = probabilities.max(axis=1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, confidence - (probabilities.argmax(axis=1) == labels), BINS)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Finds the temperature with the least negative log-likelihood, between MIN_TEMPERATURE and MAX_TEMPERATURE.

    The negative log-likelihood of softmax(logits * s) is convex in the scale s = 1 / temperature, because its second
    derivative is a mean of variances. So its minimum is where the derivative changes its sign, and bisection finds it.

    Args:
      logits: [N, classes], N at least 1.
      labels: Class labels, [N].
    """
    given = logits[np.arange(len(labels)), labels]

    def compute_slope(scale: float) -> float:
        return float(((compute_softmax(logits * scale) * logits).sum(axis=1) - given).mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    for _ in range(50):  # halves the interval until float64 has no digits left
        middle = (low + high) / 2
        low, high = (low, middle) if compute_slope(middle) > 0 else (middle, high)
    return 2 / (low + high)


def compute_logits(model: keras.Model, split: Split) -> npt.NDArray[np.float64]:
    """Computes the logits of every image of a split, float64 [N, classes].

    Args:
      model: A model whose last layer is a Dense layer with softmax, called features.OUTPUT_PROBABILITIES.
      split: The split, whose rows are preprocessed images.
    """
    head = model.get_layer(features.OUTPUT_PROBABILITIES)
    linear = keras.layers.Dense(head.units, dtype='float32', name='logits')
    outputs = linear(head.input)
    linear.set_weights(head.get_weights())
    graph = InferenceGraph(keras.Model(model.input, outputs))
    logits = []
    with track('calibration', split.count) as advance:
        for images, _ in make_batches(split, EpochOrder(split.count, None), BATCH):
            logits.append(graph(images).numpy())
            advance(len(images))
    return np.concatenate(logits).astype(np.float64)


def scale_temperature(model: keras.Model, val: Split) -> Calibration:
    """Fits the temperature on the val split, and folds it into the model's last layer.

    Softmax of (x W + b) / T is softmax of x (W / T) + b / T, so dividing kernel and bias is exact.

    Args:
      model: A model whose last layer is a Dense layer with softmax, called features.OUTPUT_PROBABILITIES; changed in
        place.
      val: The split, whose rows are preprocessed images.
    """
    logits = compute_logits(model, val)
    temperature = fit_temperature(logits, val.labels)
    head = model.get_layer(features.OUTPUT_PROBABILITIES)
    head.set_weights([weights / temperature for weights in head.get_weights()])
    return Calibration(
        temperature=temperature,
        error_before=measure_calibration_error(compute_softmax(logits), val.labels),
        error=measure_calibration_error(compute_softmax(logits / temperature), val.labels),
    )
