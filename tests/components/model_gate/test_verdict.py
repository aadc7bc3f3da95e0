"""The model gate's verdicts on given measurements: the bounds, the confidence interval, the sentences."""

import json

import pytest

from components.baseline import BaselineInfo
from components.data import cifar10
from components.errors import UsageError
from components.model_gate.config import GateConfig
from components.model_gate.verdict import ACCURACY_LOW, VERDICT_FILE, judge, measure_change, read_verdict, write_verdict
from components.reasons import list_broken

NAMES = cifar10.CONTRACT.class_names


def make_metrics(accuracy: float, count: int = 10_000, **overall: float) -> dict:
    by_class = {'accuracy': accuracy, 'example_count': count / len(NAMES)}
    whole = {'accuracy': accuracy, 'example_count': count, 'calibration_error': 0.02, 'not_finite': 0, **overall}
    return {None: whole, **{label: dict(by_class) for label in range(len(NAMES))}}


def make_paired(candidate: int, baseline: int) -> dict[str, float]:
    """Numbers of images on which only the candidate, and only the baseline, is right, under the names TFMA reads."""
    return {'only_candidate_right_diff': candidate, 'only_baseline_right_diff': baseline}


def test_a_model_that_keeps_every_bound_is_blessed():
    verdict = judge(make_metrics(0.93), GateConfig(), BaselineInfo(), NAMES)
    assert verdict.is_blessed
    assert list_broken(verdict.reasons) == []
    assert verdict.overall.sentence == 'accuracy 0.930 (95% interval 0.925 to 0.935) >= 0.900 on 10,000 test images'
    assert {reason.slice for reason in verdict.reasons} == {'', *NAMES}
    assert verdict.baseline == 'no baseline (nothing was serving when this model was first evaluated)'


@pytest.mark.parametrize(
    ('changes', 'metric', 'sentence'),
    [
        (
            {'accuracy': 0.412},
            'accuracy',
            'accuracy 0.412 (95% interval 0.402 to 0.422) < 0.900 on 10,000 test images',
        ),
        ({'calibration_error': 0.3}, 'calibration_error', 'calibration error 0.300 > 0.150 on 10,000'),
        ({'not_finite': 12}, 'not_finite', '12 of 10,000 test images get probabilities that are not numbers'),
    ],
)
def test_a_broken_bound_refuses_and_is_named(changes, metric, sentence):
    metrics = make_metrics(0.93)
    metrics[None].update(changes)
    verdict = judge(metrics, GateConfig(), BaselineInfo(), NAMES)
    assert not verdict.is_blessed
    assert list_broken(verdict.reasons) == [sentence]
    (reason,) = [reason for reason in verdict.reasons if not reason.is_kept]
    assert (reason.metric, reason.value, reason.count) == (metric, changes[metric], 10_000)


def test_a_class_below_the_floor_refuses_a_model_whose_accuracy_is_fine():
    metrics = make_metrics(0.95)
    metrics[3]['accuracy'] = 0.412
    assert list_broken(judge(metrics, GateConfig(), BaselineInfo(), NAMES).reasons) == [
        'recall of cat 0.412 (95% interval 0.382 to 0.443) < 0.750 on 1,000'
    ]


def count_right(*by_class: tuple[int, int]) -> dict:
    """Makes the metrics of a model from (right, images) of each class."""
    metrics: dict = {
        label: {'accuracy': right / count, 'example_count': count} for label, (right, count) in enumerate(by_class)
    }
    right, count = (sum(each) for each in zip(*by_class, strict=True))
    metrics[None] = {'accuracy': right / count, 'example_count': count, 'calibration_error': 0, 'not_finite': 0}
    return metrics


def judge_three(*by_class: tuple[int, int], **gate) -> list[str]:
    """Judges a model of three classes, and returns what it is refused for."""
    bounds = GateConfig(**{'accuracy': 0.3, 'recall': 0, **gate})
    return list_broken(judge(count_right(*by_class), bounds, BaselineInfo(), ('cat', 'cow', 'dog')).reasons)


def test_the_sentence_says_how_little_few_images_prove():
    """The interval is that of R's binom.confint(28, 30, methods='wilson')."""
    assert judge_three((10, 10), (9, 10), (9, 10), accuracy=0.95) == [
        'accuracy 0.933 (95% interval 0.787 to 0.982) < 0.950 on 30 test images'
    ]


def test_a_model_that_always_answers_the_most_frequent_class_is_refused_whatever_its_accuracy():
    assert judge_three((0, 5), (90, 90), (0, 5)) == [
        'accuracy 0.900 (95% interval 0.826 to 0.945) on 100 test images is not better than always answering cow, '
        'which is 0.900'
    ]
    assert judge_three((0, 5), (90, 90), (0, 5), accuracy=0) == [], 'a gate without accuracy asks for nothing'


@pytest.mark.parametrize(
    ('right', 'count', 'is_better'), [(2, 2, True), (1, 2, False), (6, 10, True), (5, 10, False), (40, 100, True)]
)
def test_a_model_is_better_than_a_constant_only_where_chance_does_not_explain_it(right, count, is_better):
    """Of three classes with as many images each, of which a constant is right on a third."""
    metrics = count_right(*[(right, count)] * 3)
    verdict = judge(metrics, GateConfig(accuracy=0.3, recall=0), BaselineInfo(), ('cat', 'cow', 'dog'))
    (reason,) = [reason for reason in verdict.reasons if reason.metric == ACCURACY_LOW]
    assert (reason.is_kept, reason.bound) == (is_better, pytest.approx(1 / 3))
    assert reason.is_kept == (reason.value > reason.bound)


def test_single_classes_can_have_a_floor_of_their_own():
    classes = ((9, 10), (6, 10), (2, 10))
    assert judge_three(*classes, recall=0.5) == ['recall of dog 0.200 (95% interval 0.057 to 0.510) < 0.500 on 10']
    assert judge_three(*classes, recall=0.5, recall_by_class=('dog=0.1',)) == []
    assert judge_three(*classes, recall_by_class=('cat=0.95', 'dog=0.1')) == [
        'recall of cat 0.900 (95% interval 0.596 to 0.982) < 0.950 on 10'
    ]


def test_a_floor_for_a_class_that_the_data_does_not_have_is_refused_with_the_classes_that_it_has():
    with pytest.raises(UsageError) as refusal:
        judge_three((9, 10), (9, 10), (9, 10), recall_by_class=('cats=0.9',))
    assert str(refusal.value) == (
        "gate.recall_by_class names the class 'cats', which the data does not have. Did you mean cat? It has cat, cow, "
        'dog.'
    )
    names = [f'class {number}' for number in range(300)]
    with pytest.raises(
        UsageError, match=r"'bird', which the data does not have\. It has class 0, .* class 19, \.\.\.\.$"
    ):
        GateConfig(recall_by_class=('bird=0.9',)).list_recalls(names)


def test_a_class_name_may_hold_what_separates_settings():
    assert GateConfig(recall=0.5, recall_by_class=('a=b, c=0.9',)).list_recalls(['a=b, c', 'd']) == [0.9, 0.5]


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
        policy: judge(metrics, GateConfig(baseline=policy), BaselineInfo(7), NAMES)
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
    verdict = judge(make_metrics(0.5, **make_paired(1, 9)), GateConfig(), BaselineInfo(7), NAMES)
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
