"""What TFMA itself does not measure: calibration, probabilities that are not numbers, the model against its baseline.

These are TFMA metrics. A MetricConfig names them with this module's name, and TFMA computes them in the same pass over
the records as its own.
"""

from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.utils import model_util

ACCURACY = 'accuracy'
RECALL = 'recall'  # TFMA measures it as the accuracy on the images of one class
EXAMPLE_COUNT = 'example_count'
CALIBRATION_ERROR = 'calibration_error'
NOT_FINITE = 'not_finite'
# These two describe the candidate and the baseline together. TFMA appends '_diff' to their names when it reads them.
ONLY_CANDIDATE_RIGHT = 'only_candidate_right'
ONLY_BASELINE_RIGHT = 'only_baseline_right'

Metrics = dict[int | None, dict[str, float]]
"""Metrics by name, by class; those of the whole test split under None."""

BINS = 15  # of equal width, as in Guo et al. (2017), "On Calibration of Modern Neural Networks"

Floats = npt.NDArray[np.floating[Any]]
Sums = npt.NDArray[np.float64]

# Takes a record's label and each model's probabilities; returns what the record adds to the sums.
Count = Callable[[int, list[Floats]], Sums]


def count_calibration(label: int, probabilities: list[Floats]) -> Sums:
    """Returns what one record adds to the sums for the calibration error: float64 [BINS + 1].

    The entry of the bin in which the confidence falls is the confidence less 1 for a right prediction, or less 0 for
    a wrong one; the last entry counts the record.
    """
    (given,) = probabilities
    sums = np.zeros(BINS + 1)
    confidence = np.max(given)
    if np.isfinite(confidence):
        sums[min(int(confidence * BINS), BINS - 1)] = confidence - (np.argmax(given) == label)
    sums[BINS] = 1
    return sums


def count_not_finite(label: int, probabilities: list[Floats]) -> Sums:
    """Returns one if a probability of the record is not a number, else zero: float64 [1]."""
    (given,) = probabilities
    return np.array([not np.isfinite(given).all()], np.float64)


def count_paired(label: int, probabilities: list[Floats]) -> Sums:
    """Returns whether only the first model is right on the record, and whether only the second is: float64 [2]."""
    first, second = (bool(np.isfinite(given).all()) and np.argmax(given) == label for given in probabilities)
    return np.array([first and not second, second and not first], np.float64)


class _SumCounts(beam.CombineFn):
    """Sums what `count` returns over the records, and computes metrics from the sums."""

    def __init__(
        self,
        eval_config: config_pb2.EvalConfig,
        model_names: list[str],
        count: Count,
        make_metrics: Callable[[Sums], dict[metric_types.MetricKey, float]],
    ):
        self._eval_config = eval_config
        self._model_names = model_names
        self._count = count
        self._make_metrics = make_metrics

    def create_accumulator(self) -> float | Sums:
        return 0.0

    def add_input(self, sums: float | Sums, element: metric_types.StandardMetricInputs) -> float | Sums:
        probabilities = []
        for name in self._model_names:
            label, given, _ = next(
                metric_util.to_label_prediction_example_weight(
                    element, eval_config=self._eval_config, model_name=name, flatten=False
                )
            )
            probabilities.append(given)
        return sums + self._count(int(label.item()), probabilities)

    def merge_accumulators(self, accumulators: Iterable[float | Sums]) -> float | Sums:
        return sum(accumulators)

    def extract_output(self, sums: Sums) -> dict[metric_types.MetricKey, float]:
        return self._make_metrics(sums)


def _compute_sum(name: str, count: Count, make_value: Callable[[Sums], float]) -> Callable[..., list[Any]]:
    """Returns the function that TFMA wants for a metric of a single model: it makes one computation for each model."""

    def make_computations(
        eval_config: config_pb2.EvalConfig = None, model_names: list[str] | None = None, **_: Any
    ) -> list[metric_types.MetricComputation]:
        computations = []
        for model_name in model_names or ['']:
            key = metric_types.MetricKey(name, model_name=model_name)

            def make_metrics(sums: Sums, key: metric_types.MetricKey = key) -> dict[metric_types.MetricKey, float]:
                return {key: make_value(sums)}

            combiner = _SumCounts(eval_config, [model_name], count, make_metrics)
            computations.append(metric_types.MetricComputation(keys=[key], preprocessors=None, combiner=combiner))
        return computations

    return make_computations


def _compute_paired(
    eval_config: config_pb2.EvalConfig = None, model_names: list[str] | None = None, **_: Any
) -> list[metric_types.MetricComputation]:
    """Makes the computation for the candidate and the baseline together; none where there is no baseline."""
    baseline = model_util.get_baseline_model_spec(eval_config)
    if baseline is None:
        return []
    (candidate,) = (name for name in model_names or [] if name != baseline.name)
    keys = [
        metric_types.MetricKey(name, model_name=candidate, is_diff=True)
        for name in (ONLY_CANDIDATE_RIGHT, ONLY_BASELINE_RIGHT)
    ]

    def make_metrics(sums: Sums) -> dict[metric_types.MetricKey, float]:
        return dict(zip(keys, sums.tolist(), strict=True))

    combiner = _SumCounts(eval_config, [candidate, baseline.name], count_paired, make_metrics)
    return [metric_types.MetricComputation(keys=keys, preprocessors=None, combiner=combiner)]


class CalibrationError(metric_types.Metric):
    """The expected calibration error, 0-1: how much confidence and accuracy differ, on average over BINS bins."""

    def __init__(self, name: str = CALIBRATION_ERROR):
        def compute(sums: Sums) -> float:
            return float(np.abs(sums[:BINS]).sum() / sums[BINS])

        super().__init__(_compute_sum(name, count_calibration, compute), name=name)


class NotFinite(metric_types.Metric):
    """The number of records that get a probability that is not a number."""

    def __init__(self, name: str = NOT_FINITE):
        super().__init__(_compute_sum(name, count_not_finite, lambda sums: float(sums[0])), name=name)


class PairedOutcomes(metric_types.Metric):
    """The number of records on which only the candidate is right, and of those on which only the baseline is."""

    def __init__(self, name: str = ''):
        super().__init__(_compute_paired, name=name)


def read_metrics(evaluation_uri: str) -> Metrics:
    """Reads the candidate's metrics, for each class and for the whole test split.

    Args:
      evaluation_uri: the Evaluator's `evaluation` artifact.
    """
    result = tfma.load_eval_result(evaluation_uri)
    metrics: Metrics = {}
    for slice_key in result.get_slice_names():
        label = slice_key[0][1] if slice_key else None
        values = result.get_metrics_for_slice(slice_key)
        metrics[label] = {name: value['doubleValue'] for name, value in values.items() if 'doubleValue' in value}
    return metrics
