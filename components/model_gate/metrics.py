"""What TFMA does not measure: calibration, probabilities that are no numbers, and a model against its baseline.

TFMA metrics, to be named in a MetricConfig with this module's name. They are computed in its one pass over the records.
"""

from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.utils import model_util

ACCURACY = 'accuracy'
RECALL = 'recall'  # which is the accuracy of a class's slice
EXAMPLE_COUNT = 'example_count'
CALIBRATION_ERROR = 'calibration_error'
NOT_FINITE = 'not_finite'
# Of the candidate and the baseline together; TFMA adds '_diff' to such names when it reads them.
ONLY_CANDIDATE_RIGHT = 'only_candidate_right'
ONLY_BASELINE_RIGHT = 'only_baseline_right'

Metrics = dict[int | None, dict[str, float]]

BINS = 15  # of equal width, as Guo et al. (2017), "On Calibration of Modern Neural Networks"

# A record's label and the probabilities of some models -> what it adds to the sums.
Count = Callable[[int, list[np.ndarray]], np.ndarray]


def count_calibration(label: int, probabilities: list[np.ndarray]) -> np.ndarray:
    """Adds confidence less correctness to the bin of the confidence; and one record. float64 [BINS + 1]."""
    (given,) = probabilities
    sums = np.zeros(BINS + 1)
    confidence = np.max(given)
    if np.isfinite(confidence):
        sums[min(int(confidence * BINS), BINS - 1)] = confidence - (np.argmax(given) == label)
    sums[BINS] = 1
    return sums


def count_not_finite(label: int, probabilities: list[np.ndarray]) -> np.ndarray:
    """Adds one if a probability is not a number. float64 [1]."""
    (given,) = probabilities
    return np.array([not np.isfinite(given).all()], float)


def count_paired(label: int, probabilities: list[np.ndarray]) -> np.ndarray:
    """Adds one where the first model alone is right, and where the second alone is. float64 [2]."""
    first, second = (np.isfinite(given).all() and np.argmax(given) == label for given in probabilities)
    return np.array([first and not second, second and not first], float)


class _SumCounts(beam.CombineFn):
    """Sums `count` over the records, and makes metrics of the sums."""

    def __init__(
        self,
        eval_config: tfma.EvalConfig,
        model_names: list[str],
        count: Count,
        make_metrics: Callable[[np.ndarray], dict[metric_types.MetricKey, float]],
    ):
        self._eval_config = eval_config
        self._model_names = model_names
        self._count = count
        self._make_metrics = make_metrics

    def create_accumulator(self) -> float | np.ndarray:
        return 0.0

    def add_input(self, sums: float | np.ndarray, element: metric_types.StandardMetricInputs) -> np.ndarray:
        probabilities = []
        for name in self._model_names:
            label, given, _ = next(
                metric_util.to_label_prediction_example_weight(
                    element, eval_config=self._eval_config, model_name=name, flatten=False
                )
            )
            probabilities.append(given)
        return sums + self._count(int(label.item()), probabilities)

    def merge_accumulators(self, accumulators: Iterable[float | np.ndarray]) -> float | np.ndarray:
        return sum(accumulators)

    def extract_output(self, sums: np.ndarray) -> dict[metric_types.MetricKey, float]:
        return self._make_metrics(sums)


def _compute_sum(name: str, count: Count, make_value: Callable[[np.ndarray], float]) -> Callable[..., Any]:
    """The function TFMA wants of a metric of one model: computations for each model."""

    def make_computations(eval_config=None, model_names=None, **_):
        computations = []
        for model_name in model_names or ['']:
            key = metric_types.MetricKey(name, model_name=model_name)
            combiner = _SumCounts(eval_config, [model_name], count, lambda sums, key=key: {key: make_value(sums)})
            computations.append(metric_types.MetricComputation(keys=[key], preprocessors=None, combiner=combiner))
        return computations

    return make_computations


def _compute_paired(eval_config=None, model_names=None, **_) -> metric_types.MetricComputations:
    """As above, of the candidate and the baseline together; none where there is no baseline."""
    baseline = model_util.get_baseline_model_spec(eval_config)
    if baseline is None:
        return []
    (candidate,) = (name for name in model_names if name != baseline.name)
    keys = [
        metric_types.MetricKey(name, model_name=candidate, is_diff=True)
        for name in (ONLY_CANDIDATE_RIGHT, ONLY_BASELINE_RIGHT)
    ]
    combiner = _SumCounts(
        eval_config, [candidate, baseline.name], count_paired, lambda sums: dict(zip(keys, sums.tolist(), strict=True))
    )
    return [metric_types.MetricComputation(keys=keys, preprocessors=None, combiner=combiner)]


class CalibrationError(metric_types.Metric):
    """Expected calibration error, 0-1: by how much confidence and accuracy differ, on average over BINS bins."""

    def __init__(self, name: str = CALIBRATION_ERROR):
        def compute(sums: np.ndarray) -> float:
            return float(np.abs(sums[:BINS]).sum() / sums[BINS])

        super().__init__(_compute_sum(name, count_calibration, compute), name=name)


class NotFinite(metric_types.Metric):
    """How many records get a probability that is not a number."""

    def __init__(self, name: str = NOT_FINITE):
        super().__init__(_compute_sum(name, count_not_finite, lambda sums: float(sums[0])), name=name)


class PairedOutcomes(metric_types.Metric):
    """On how many records the candidate alone is right, and on how many the baseline alone is."""

    def __init__(self, name: str = ''):
        super().__init__(_compute_paired, name=name)


def read_metrics(evaluation_uri: str) -> Metrics:
    """The candidate's metrics by name, of each class of the test split, and of the whole split under None.

    Args:
      evaluation_uri: the Evaluator's `evaluation` artifact.
    """
    result = tfma.load_eval_result(evaluation_uri)
    metrics = {}
    for slice_key in result.get_slice_names():
        label = slice_key[0][1] if slice_key else None
        values = result.get_metrics_for_slice(slice_key)
        metrics[label] = {name: value['doubleValue'] for name, value in values.items() if 'doubleValue' in value}
    return metrics
