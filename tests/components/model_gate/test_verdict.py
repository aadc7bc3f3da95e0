"""The model gate's verdicts on given measurements: the bounds, the confidence interval, the sentences."""

import json

import pytest

from components import features
from components.baseline import BaselineInfo
from components.errors import UsageError
from components.model_gate.config import GateConfig
from components.model_gate.verdict import VERDICT_FILE, judge, measure_change, read_verdict, write_verdict
from components.reasons import list_broken


def make_metrics(accuracy: float, count: int = 10_000, **overall: float) -> dict:
    by_class = {'accuracy': accuracy, 'example_count': count / features.NUM_CLASSES}
    whole = {'accuracy': accuracy, 'example_count': count, 'calibration_error': 0.02, 'not_finite': 0, **overall}
    return {None: whole, **{label: dict(by_class) for label in range(features.NUM_CLASSES)}}


def make_paired(candidate: int, baseline: int) -> dict[str, float]:
    """Numbers of images on which only the candidate, and only the baseline, is right, under the names TFMA reads."""
    return {'only_candidate_right_diff': candidate, 'only_baseline_right_diff': baseline}


def test_a_model_that_keeps_every_bound_is_blessed():
    verdict = judge(make_metrics(0.93), GateConfig(), BaselineInfo())
    assert verdict.is_blessed
    assert list_broken(verdict.reasons) == []
    assert verdict.overall.sentence == 'accuracy 0.930 >= 0.900 on 10,000 test images'
    assert {reason.slice for reason in verdict.reasons} == {'', *features.CLASS_NAMES}
    assert verdict.baseline == 'no baseline (nothing was serving when this model was first evaluated)'


@pytest.mark.parametrize(
    ('changes', 'metric', 'sentence'),
    [
        ({'accuracy': 0.412}, 'accuracy', 'accuracy 0.412 < 0.900 on 10,000 test images'),
        ({'calibration_error': 0.3}, 'calibration_error', 'calibration error 0.300 > 0.150 on 10,000'),
        ({'not_finite': 12}, 'not_finite', '12 of 10,000 test images get probabilities that are not numbers'),
    ],
)
def test_a_broken_bound_refuses_and_is_named(changes, metric, sentence):
    metrics = make_metrics(0.93)
    metrics[None].update(changes)
    verdict = judge(metrics, GateConfig(), BaselineInfo())
    assert not verdict.is_blessed
    assert list_broken(verdict.reasons) == [sentence]
    (reason,) = [reason for reason in verdict.reasons if not reason.is_kept]
    assert (reason.metric, reason.value, reason.count) == (metric, changes[metric], 10_000)


def test_a_class_below_the_floor_refuses_a_model_whose_accuracy_is_fine():
    metrics = make_metrics(0.95)
    metrics[3]['accuracy'] = 0.412
    assert list_broken(judge(metrics, GateConfig(), BaselineInfo()).reasons) == ['recall of cat 0.412 < 0.750 on 1,000']


@pytest.mark.parametrize(
    ('candidate', 'baseline', 'kind'),
    [
        (0, 0, 'equal within chance'),
        (200, 200, 'equal within chance'),
        (190, 210, 'equal within chance'),
        (5, 5, 'equal within chance'),
        (0, 5, 'equal within chance'),
        (150, 250, 'worse'),
        (0, 6, 'worse'),
        (250, 150, 'better'),
    ],
)
def test_a_change_within_chance_is_neither_better_nor_worse(candidate, baseline, kind):
    metrics = make_metrics(0.93, **make_paired(candidate, baseline))
    blessed = {
        policy: judge(metrics, GateConfig(baseline=policy), BaselineInfo(7))
        for policy in ('not_worse', 'better', 'ignore')
    }
    assert blessed['ignore'].baseline.endswith(f'against version 7 on 10,000: {kind}')
    assert blessed['ignore'].is_blessed
    assert blessed['not_worse'].is_blessed == (kind != 'worse')
    assert blessed['better'].is_blessed == (kind == 'better')


def test_the_interval_is_mcnemars_exact_test():
    from scipy import stats

    for candidate, baseline in ((3, 11), (2, 12), (40, 61), (40, 60)):
        change = measure_change(candidate, baseline, 1_000, 0.95)
        p_value = stats.binomtest(candidate, candidate + baseline).pvalue
        assert (p_value < 0.05) == (change.high < 0)
        assert change.value == pytest.approx((candidate - baseline) / 1_000)
        assert change.low <= change.value <= change.high


def test_the_interval_holds_the_true_change_as_often_as_it_says():
    import numpy as np

    random, hits, rounds = np.random.default_rng(0), 0, 400
    for _ in range(rounds):  # both or none right, only the candidate, only the baseline: a true change of -0.02
        _, candidate, baseline = random.multinomial(2_000, [0.9, 0.04, 0.06])
        change = measure_change(candidate, baseline, 2_000, 0.9)
        hits += change.low <= -0.02 <= change.high
    assert 0.87 * rounds <= hits


def test_a_verdict_is_kept_as_json(tmp_path):
    verdict = judge(make_metrics(0.5, **make_paired(1, 9)), GateConfig(), BaselineInfo(7))
    write_verdict(str(tmp_path), verdict)
    assert read_verdict(str(tmp_path)) == verdict
    written = json.loads((tmp_path / VERDICT_FILE).read_text())
    assert written['is_blessed'] is False
    assert set(written['reasons'][0]) == {'metric', 'slice', 'value', 'bound', 'count', 'is_kept', 'sentence'}


@pytest.mark.parametrize(
    'settings', [{'accuracy': 1.5}, {'calibration_error': -1}, {'confidence': 1.0}, {'baseline': 'foo'}]
)
def test_impossible_bounds_are_refused(settings):
    with pytest.raises(UsageError, match=r'gate\.\w+ must be .*Received: '):
        GateConfig(**settings)
