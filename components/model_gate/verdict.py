"""The model gate's verdict: compares what TFMA measured with the gate's bounds, and gives the reasons in words."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from components import features
from components.baseline import BaselineInfo
from components.model_gate.config import GateConfig
from components.model_gate.metrics import (
    ACCURACY,
    CALIBRATION_ERROR,
    EXAMPLE_COUNT,
    NOT_FINITE,
    ONLY_BASELINE_RIGHT,
    ONLY_CANDIDATE_RIGHT,
    RECALL,
    Metrics,
)
from components.model_gate.slices import Slice
from components.reasons import Reason
from components.shares import CONFIDENCE, Share, measure_share

ACCURACY_LOW = 'accuracy_lower_bound'  # must be above the share of the most frequent class
SLICE_ACCURACY = 'slice_accuracy'
VERDICT_FILE = 'verdict.json'  # in the Evaluator's `evaluation` artifact


class Verdict(NamedTuple):
    """What the gate decided, and why."""

    is_blessed: bool
    """Whether every bound was kept."""
    reasons: tuple[Reason, ...]
    """One for each bound; the first one is the accuracy on the whole test split."""
    baseline: str
    """How the model compares with its baseline, or why it has none, in words."""
    baseline_predictions: str = ''
    """Whether the baseline's predictions were kept with it or made anew, and why, in words; '' without a baseline."""

    @property
    def overall(self) -> Reason:
        """The accuracy on the whole test split."""
        return self.reasons[0]


class Change(NamedTuple):
    """The candidate's accuracy less the baseline's on the same images, with its confidence interval; each -1 to 1."""

    value: float
    low: float
    high: float


def measure_change(only_candidate: int, only_baseline: int, count: int, confidence: float) -> Change:
    """Computes the change of accuracy and its interval, by McNemar's exact test (1947).

    If both models are equally good, each is as likely as the other to be the right one on an image where only one of
    them is right. So the number of images on which only the candidate is right has a binomial distribution among those
    images. Clopper and Pearson (1934) give the interval of that share, and scaling it gives the interval of the change.
    Zero is outside the interval exactly where the test tells the models apart.

    Args:
      only_candidate: number of images on which only the candidate is right.
      only_baseline: number of images on which only the baseline is right.
      count: number of all images.
      confidence: of the interval, 0-1.
    """
    from scipy import stats

    differing = only_candidate + only_baseline
    if not differing:
        return Change(0.0, 0.0, 0.0)
    shares = stats.binomtest(only_candidate, differing).proportion_ci(confidence, method='exact')
    value, low, high = (
        (2 * share - 1) * differing / count for share in (only_candidate / differing, shares.low, shares.high)
    )
    return Change(value, low, high)


def _measure_accuracy(values: dict[str, float]) -> Share:
    count = int(values[EXAMPLE_COUNT])
    return measure_share(round(values[ACCURACY] * count), count)


def _describe_interval(share: Share) -> str:
    return f'({CONFIDENCE:.0%} interval {share.low:.3f} to {share.high:.3f})'


def _judge_accuracy(metric: str, part: str, values: dict[str, float], bound: float) -> Reason:
    """Compares the share of right predictions with the least share that is allowed.

    The sentence has the interval of the share too, which says how little few images prove.

    Args:
      metric: ACCURACY or RECALL.
      part: name of the class whose images these are; '' for the whole test split.
      values: the metrics of these images.
      bound: the least share, 0-1.
    """
    value, count = values[ACCURACY], int(values[EXAMPLE_COUNT])
    is_kept = value >= bound
    name = f'{metric} of {part}' if part else metric
    images = f'{count:,}' if part else f'{count:,} {features.TEST_SPLIT} images'
    interval = _describe_interval(_measure_accuracy(values))
    sentence = f'{name} {value:.3f} {interval} {">=" if is_kept else "<"} {bound:.3f} on {images}'
    return Reason(metric, part, value, bound, count, is_kept, sentence)


def _judge_majority(metrics: Metrics, class_names: Sequence[str]) -> Reason:
    """Compares the accuracy with that of always answering the class that is most frequent in the test split.

    The lower end of the accuracy's interval must be above that class's share, so that a model is not taken for better
    by chance. A model that knows nothing of the images does not pass, whatever the number of classes.
    """
    accuracy = _measure_accuracy(metrics[None])
    labels = sorted(label for label in metrics if label is not None)
    label = max(labels, key=lambda label: metrics[label][EXAMPLE_COUNT])
    share = metrics[label][EXAMPLE_COUNT] / accuracy.count
    low = accuracy.low or 0.0  # never None: there are images
    is_kept = low > share
    sentence = (
        f'accuracy {accuracy.value:.3f} {_describe_interval(accuracy)} on {accuracy.count:,} {features.TEST_SPLIT} '
        f'images is {"" if is_kept else "not "}better than always answering {class_names[label]}, which is {share:.3f}'
    )
    return Reason(ACCURACY_LOW, '', low, share, accuracy.count, is_kept, sentence)


def _judge_probabilities(values: dict[str, float], gate: GateConfig) -> Iterator[Reason]:
    """Checks that all probabilities are numbers, and that the model's confidence fits its accuracy."""
    count, not_finite, error = int(values[EXAMPLE_COUNT]), int(values[NOT_FINITE]), values[CALIBRATION_ERROR]
    sentence = f'{not_finite:,} of {count:,} {features.TEST_SPLIT} images get probabilities that are not numbers'
    yield Reason(NOT_FINITE, '', not_finite, 0, count, not not_finite, sentence)
    is_kept = error <= gate.calibration_error
    sentence = f'calibration error {error:.3f} {"<=" if is_kept else ">"} {gate.calibration_error:.3f} on {count:,}'
    yield Reason(CALIBRATION_ERROR, '', error, gate.calibration_error, count, is_kept, sentence)


def _judge_change(values: dict[str, float], gate: GateConfig, version: int) -> Reason:
    """Compares the candidate's accuracy with that of its baseline, which is `version`."""
    count = int(values[EXAMPLE_COUNT])
    only_candidate, only_baseline = (
        int(values[f'{name}_diff']) for name in (ONLY_CANDIDATE_RIGHT, ONLY_BASELINE_RIGHT)
    )
    change = measure_change(only_candidate, only_baseline, count, gate.confidence)
    kind = 'better' if change.low > 0 else 'worse' if change.high < 0 else 'equal within chance'
    is_kept = {'not_worse': kind != 'worse', 'better': kind == 'better', 'ignore': True}[gate.baseline]
    interval = f'{gate.confidence:.0%} interval {change.low:+.3f} to {change.high:+.3f}'
    sentence = f'accuracy {change.value:+.3f} ({interval}) against version {version} on {count:,}: {kind}'
    return Reason('accuracy_change', '', change.value, 0.0, count, is_kept, sentence)


def _judge_slice(each: Slice, bound: float) -> Reason:
    value = each.right / each.count
    is_kept = value >= bound
    where = f'accuracy of the quarter with {each.property} {each.low:,.0f} to {each.high:,.0f}'
    sentence = f'{where} {value:.3f} {">=" if is_kept else "<"} {bound:.3f} on {each.count:,}'
    return Reason(SLICE_ACCURACY, each.get_name(), value, bound, each.count, is_kept, sentence)


def judge(
    metrics: Metrics,
    gate: GateConfig,
    baseline: BaselineInfo,
    class_names: Sequence[str],
    slices: Sequence[Slice] = (),
) -> Verdict:
    """Compares what TFMA measured with the bounds.

    Args:
      metrics: from `read_metrics`.
      gate: the bounds.
      baseline: the version that the candidate was compared with, or why there is none.
      class_names: of the model's data contract.
      slices: the quarters of the test images that `gate.slices` is a bound for.

    Raises:
      UsageError: the gate has a bound for a class that the model does not know.
    """
    overall, recalls = metrics[None], gate.list_recalls(class_names)
    reasons = [_judge_accuracy(ACCURACY, '', overall, gate.accuracy)]
    if gate.accuracy:
        reasons.append(_judge_majority(metrics, class_names))
    reasons += _judge_probabilities(overall, gate)
    if baseline.version is None:
        compared = f'no baseline ({baseline.describe_absence()})'
    else:
        change = _judge_change(overall, gate, baseline.version)
        compared = change.sentence
        reasons.append(change)
    for label in sorted(label for label in metrics if label is not None):
        reasons.append(_judge_accuracy(RECALL, class_names[label], metrics[label], recalls[label]))
    reasons += [_judge_slice(each, gate.slices) for each in slices if gate.slices]
    return Verdict(all(reason.is_kept for reason in reasons), tuple(reasons), compared)


def write_verdict(evaluation_uri: str, verdict: Verdict) -> None:
    """Writes a verdict as JSON: an object with the fields of `Verdict`, each reason as an object too."""
    content = {**verdict._asdict(), 'reasons': [asdict(reason) for reason in verdict.reasons]}
    (Path(evaluation_uri) / VERDICT_FILE).write_text(json.dumps(content, indent=2))


def read_verdict(evaluation_uri: str) -> Verdict:
    """Reads what `write_verdict` wrote into the Evaluator's `evaluation` artifact."""
    content = json.loads((Path(evaluation_uri) / VERDICT_FILE).read_text())
    return Verdict(**{**content, 'reasons': tuple(Reason(**reason) for reason in content['reasons'])})
