"""The model gate: the bounds that bless, held against what TFMA measured, and the reasons in words."""

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from components import features
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
from components.reasons import Reason

VERDICT_FILE = 'verdict.json'  # in the Evaluator's `evaluation` artifact


class Verdict(NamedTuple):
    """What the gate found. reasons: the whole split's accuracy first; baseline: in words, which one was beaten or not.

    is_blessed: whether every bound was kept.
    """

    is_blessed: bool
    reasons: tuple[Reason, ...]
    baseline: str

    @property
    def overall(self) -> Reason:
        """The whole test split's accuracy."""
        return self.reasons[0]


class Change(NamedTuple):
    """The change of accuracy from baseline to candidate on the same images, with its confidence interval; -1 to 1."""

    value: float
    low: float
    high: float


def measure_change(only_candidate: int, only_baseline: int, count: int, confidence: float) -> Change:
    """McNemar's test (1947), in its exact form, as an interval: zero is outside it where the test tells them apart.

    Given that the models differ on an image, either is as likely to be the one that is right if they are equally
    good. So the images on which the candidate alone is right are binomial among those on which one alone is, and
    the interval of that share (Clopper and Pearson 1934) is the change's, scaled.

    Args:
      only_candidate, only_baseline: images on which it alone is right.
      count: all images.
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


def _make_floor(metric: str, part: str, values: dict[str, float], bound: float) -> Reason:
    """A share of right answers against its least value."""
    value, count = values[ACCURACY], int(values[EXAMPLE_COUNT])
    is_kept = value >= bound
    name = f'{metric} of {part}' if part else metric
    images = f'{count:,}' if part else f'{count:,} {features.TEST_SPLIT} images'
    sentence = f'{name} {value:.3f} {">=" if is_kept else "<"} {bound:.3f} on {images}'
    return Reason(metric, part, value, bound, count, is_kept, sentence)


def _judge_numbers(values: dict[str, float], gate: GateConfig) -> Iterator[Reason]:
    """Whether probabilities are numbers, and as sure as they are right."""
    count, not_finite, error = int(values[EXAMPLE_COUNT]), int(values[NOT_FINITE]), values[CALIBRATION_ERROR]
    sentence = f'{not_finite:,} of {count:,} {features.TEST_SPLIT} images get probabilities that are not numbers'
    yield Reason(NOT_FINITE, '', not_finite, 0, count, not not_finite, sentence)
    is_kept = error <= gate.calibration_error
    sentence = f'calibration error {error:.3f} {"<=" if is_kept else ">"} {gate.calibration_error:.3f} on {count:,}'
    yield Reason(CALIBRATION_ERROR, '', error, gate.calibration_error, count, is_kept, sentence)


def _judge_change(values: dict[str, float], gate: GateConfig, baseline: int) -> Reason:
    """The candidate's accuracy against the baseline's."""
    count = int(values[EXAMPLE_COUNT])
    paired = (int(values[f'{name}_diff']) for name in (ONLY_CANDIDATE_RIGHT, ONLY_BASELINE_RIGHT))
    change = measure_change(*paired, count, gate.confidence)
    kind = 'better' if change.low > 0 else 'worse' if change.high < 0 else 'equal within chance'
    is_kept = {'not_worse': kind != 'worse', 'better': kind == 'better', 'ignore': True}[gate.baseline]
    interval = f'{gate.confidence:.0%} interval {change.low:+.3f} to {change.high:+.3f}'
    sentence = f'accuracy {change.value:+.3f} ({interval}) against version {baseline} on {count:,}: {kind}'
    return Reason('accuracy_change', '', change.value, 0.0, count, is_kept, sentence)


def judge(metrics: Metrics, gate: GateConfig, baseline: int | None) -> Verdict:
    """Holds what TFMA measured against the bounds.

    Args:
      metrics: from `read_metrics`.
      gate: the bounds.
      baseline: the version the candidate was compared with; None where there is none, as on a first run.
    """
    overall = metrics[None]
    reasons = [_make_floor(ACCURACY, '', overall, gate.accuracy)]
    reasons += _judge_numbers(overall, gate)
    compared = 'no baseline yet'
    if baseline is not None:
        change = _judge_change(overall, gate, baseline)
        compared = change.sentence
        reasons.append(change)
    for label in sorted(set(metrics) - {None}):
        reasons.append(_make_floor(RECALL, features.CLASS_NAMES[label], metrics[label], gate.recall))
    return Verdict(all(reason.is_kept for reason in reasons), tuple(reasons), compared)


def write_verdict(evaluation_uri: str, verdict: Verdict) -> None:
    """Writes a verdict as JSON: {'is_blessed', 'baseline', 'reasons': [Reason as a dict, ...]}."""
    reasons = [dataclasses.asdict(reason) for reason in verdict.reasons]
    with tf.io.gfile.GFile(os.path.join(evaluation_uri, VERDICT_FILE), 'w') as file:
        json.dump({**verdict._asdict(), 'reasons': reasons}, file, indent=2)


def read_verdict(evaluation_uri: str) -> Verdict:
    """Reads back what `write_verdict` wrote into the Evaluator's `evaluation` artifact."""
    with tf.io.gfile.GFile(os.path.join(evaluation_uri, VERDICT_FILE)) as file:
        verdict = json.load(file)
    return Verdict(**{**verdict, 'reasons': tuple(Reason(**reason) for reason in verdict['reasons'])})
