"""The last lines of a run: what they say about a model that was pushed or refused."""

from types import SimpleNamespace

import pytest

from components.reasons import Reason
from pipeline import pipeline, summaries  # noqa: F401  (TFMA can be imported only after the components of TFX)

ACCURACY = Reason('accuracy', '', 0.98, 0.8, 100, True, 'accuracy 0.980 >= 0.800 on 100 test images')
RECALL = Reason('recall', 'cat', 0.2, 0.3, 10, False, 'recall of cat 0.200 < 0.300 on 10')
LATENCY = Reason('latency', 'serving_default', 9, 5, 30, False, 'latency of serving_default 9.0 > 5.0 on 30')
SIZE = Reason('size', '', 95, 1000, 1, True, 'size 95.0 <= 1000.0 on 1')


@pytest.fixture
def close(monkeypatch):
    """Makes the closing lines from the reasons of the model gate and of the serving check."""

    def make(gate: list[Reason], serving: list[Reason]) -> summaries.Closing:
        results = {
            'Evaluator': SimpleNamespace(
                reasons=tuple(gate), overall=gate[0], is_blessed=all(reason.is_kept for reason in gate)
            ),
            'ServingCheck': SimpleNamespace(
                reasons=tuple(serving), is_blessed=all(reason.is_kept for reason in serving)
            ),
        }
        monkeypatch.setattr(summaries, '_get_uri', lambda outputs, key: outputs)
        monkeypatch.setattr(summaries, 'read_verdict', results.get)
        monkeypatch.setattr(summaries, 'read_serving_report', results.get)
        return summaries.make_closing({name: name for name in results})

    return make


def test_a_pushed_model_is_one_line_with_its_accuracy(close):
    closing = close([ACCURACY], [SIZE])
    assert (closing.is_pushed, closing.broken) == (True, ())
    assert closing.message == 'accuracy 0.980 >= 0.800 on 100 test images: pushed'
    assert closing.reasons == (ACCURACY, SIZE)


def test_a_refused_model_is_a_line_for_each_bound_that_was_not_kept_and_a_count(close):
    closing = close([ACCURACY, RECALL], [SIZE, LATENCY])
    assert not closing.is_pushed
    assert closing.broken == (
        'recall of cat 0.200 < 0.300 on 10',
        'latency of serving_default 9.0 > 5.0 on 30',
    )
    assert closing.message == 'not pushed: 2 of 4 bounds were not kept'


def test_of_many_bounds_that_were_not_kept_the_first_are_named(close):
    closing = close([ACCURACY, *[RECALL] * 30], [LATENCY])
    assert closing.broken[-2:] == (RECALL.sentence, 'and 11 more, which the report names')
    assert len(closing.broken) == 21
    assert closing.message == 'not pushed: 31 of 32 bounds were not kept'


def test_one_bound_is_counted_in_the_singular(close):
    assert close([ACCURACY], [SIZE, LATENCY]).message == 'not pushed: 1 of 3 bounds was not kept'
