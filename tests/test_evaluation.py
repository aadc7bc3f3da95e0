"""The model gate through TFMA itself, on a model that answers what each record tells it to."""

import pytest
import tensorflow as tf

from benchmarks.evaluator import make_evaluation
from components import features
from pipeline.evaluation import GateConfig, Verdict, read_verdict


class Echo(tf.Module):
    """Gives the class that a record's id names all the probability; 'nan' gives no number at all."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
    def answer(self, examples):
        names = tf.io.parse_example(examples, {features.ID_KEY: tf.io.FixedLenFeature([], tf.string)})[features.ID_KEY]
        is_nan = tf.equal(names, 'nan')
        label = tf.strings.to_number(tf.where(is_nan, '0', names), tf.int32)
        probabilities = tf.one_hot(label, features.NUM_CLASSES)
        nothing = tf.fill(tf.shape(probabilities), float('nan'))
        return {features.OUTPUT_PROBABILITIES: tf.where(is_nan[:, tf.newaxis], nothing, probabilities)}


@pytest.fixture
def evaluate(tmp_path):
    """Evaluates (label, answer) pairs as the Evaluator does; gives the verdict."""

    def run(pairs: list[tuple[int, str]], gate: GateConfig) -> Verdict:
        model = Echo()
        tf.saved_model.save(model, str(tmp_path / 'model'), {features.SIGNATURE_EXAMPLES: model.answer})
        with tf.io.TFRecordWriter(str(tmp_path / 'records')) as writer:
            for label, answer in pairs:
                example = tf.train.Example()
                example.features.feature[features.LABEL_KEY].int64_list.value.append(label)
                example.features.feature[features.ID_KEY].bytes_list.value.append(answer.encode())
                writer.write(example.SerializeToString())
        make_evaluation(str(tmp_path / 'model'), str(tmp_path / 'records'), str(tmp_path / 'out'), gate)()
        return read_verdict(str(tmp_path / 'out'), gate)

    return run


def answer_rightly(count: int) -> list[tuple[int, str]]:
    return [(label, str(label)) for label in range(features.NUM_CLASSES) for _ in range(count)]


def test_a_model_that_is_right_is_blessed(evaluate):
    verdict = evaluate(answer_rightly(4), GateConfig())
    assert verdict.is_blessed
    assert verdict.to_sentence() == 'accuracy 1.000 >= 0.900 on 40 test images: pushed'
    assert [reason.slice for reason in verdict.reasons] == ['', *features.CLASS_NAMES]


def test_a_class_below_the_floor_refuses_a_model_whose_accuracy_is_fine(evaluate):
    pairs = answer_rightly(4)
    pairs[12:14] = [(3, '5')] * 2
    verdict = evaluate(pairs, GateConfig(accuracy=0.9, recall=0.75))
    assert not verdict.is_blessed
    assert verdict.to_sentence() == (
        'accuracy 0.950 >= 0.900 on 40 test images, recall of cat 0.500 < 0.750 on 4: not pushed'
    )


def test_a_constant_model_is_refused(evaluate):
    verdict = evaluate([(label, '0') for label, _ in answer_rightly(2)], GateConfig(recall=0))
    assert not verdict.is_blessed
    assert verdict.to_sentence() == 'accuracy 0.100 < 0.900 on 20 test images: not pushed'


def test_a_model_that_gives_no_numbers_is_refused(evaluate):
    verdict = evaluate([(label, 'nan') for label, _ in answer_rightly(2)], GateConfig(accuracy=0.05, recall=0.05))
    assert not verdict.is_blessed
