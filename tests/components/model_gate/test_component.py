"""The Evaluator's executor with the real TFMA, on models that predict what each record tells them to."""

import functools
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from benchmarks.evaluator import evaluate_with_tfma
from components import features
from components.baseline import BASELINE_FILE, Baseline, BaselineInfo
from components.contract import CONTRACT_FILE, DataContract
from components.data import cifar10
from components.errors import UsageError
from components.model_gate import component
from components.model_gate.component import Executor
from components.model_gate.eval_config import make_eval_config
from components.model_gate.metrics import read_metrics
from components.model_gate.predictions import read_records, write_predictions
from components.model_gate.verdict import Verdict, read_verdict
from components.reasons import list_broken
from components.serving.reference import read_reference
from components.serving.versions import PREDICTIONS_FILE, REFERENCE_FILE
from pipeline.config import BeamConfig

pytestmark = pytest.mark.slow

NUM_CLASSES = cifar10.CONTRACT.num_classes


class Echo(tf.Module):
    """Predicts the class whose number is a word of the record's id; for 'nan' no probability is a number.

    Args:
      word: which word of the id to read.
      num_classes: how many classes the model knows.
    """

    def __init__(self, word: int, num_classes: int = NUM_CLASSES):
        super().__init__()
        self._word, self._num_classes = word, num_classes

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
    def predict(self, examples):
        names = tf.io.parse_example(examples, {features.ID_KEY: tf.io.FixedLenFeature([], tf.string)})[features.ID_KEY]
        words = tf.strings.split(names).to_tensor()[:, self._word]
        is_nan = tf.equal(words, 'nan')
        label = tf.strings.to_number(tf.where(is_nan, '0', words), tf.int32)
        probabilities = tf.one_hot(label, self._num_classes, on_value=0.91, off_value=0.01)
        nothing = tf.fill(tf.shape(probabilities), float('nan'))
        return {features.OUTPUT_PROBABILITIES: tf.where(is_nan[:, tf.newaxis], nothing, probabilities)}


class Noisy(tf.Module):
    """Predicts probabilities of every size, which depend on the record and the seed, and are not numbers for some."""

    def __init__(self, seed: int):
        super().__init__()
        self._seed = seed

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
    def predict(self, examples):
        hashes = tf.strings.to_hash_bucket_fast(examples, 1_000_000)

        def draw(number):
            return tf.random.stateless_normal([NUM_CLASSES], [number, self._seed])

        probabilities = tf.nn.softmax(tf.map_fn(draw, hashes, fn_output_signature=tf.float32))
        is_nan = tf.equal(hashes % 17, 0)[:, tf.newaxis]
        nothing = tf.fill(tf.shape(probabilities), float('nan'))
        return {features.OUTPUT_PROBABILITIES: tf.where(is_nan, nothing, probabilities)}


@pytest.fixture
def evaluate(tmp_path):
    """Runs the executor on (label, words) pairs; the words are the predictions of the candidate and of the baseline.

    `kept` is a file of predictions that was pushed with the baseline. Run N has its artifacts in the folder N.
    """

    numbers = itertools.count(1)

    def make_artifact(kind, name: str):
        artifact = kind()
        artifact.uri = str(tmp_path / name)
        Path(artifact.uri).mkdir(parents=True)
        return artifact

    def save(artifact, word: int, make_model) -> None:
        model = make_model(word)
        folder = Path(artifact.uri) / 'Format-Serving'
        tf.saved_model.save(model, str(folder), {features.SIGNATURE_EXAMPLES: model.predict})

    def run(
        pairs: list[tuple[int, str]],
        gate: dict,
        baseline_version: int | None = None,
        kept: Path | None = None,
        make_model: Callable[[int], tf.Module] = Echo,
        contract: DataContract | None = None,
    ) -> Verdict:
        number = next(numbers)
        examples = make_artifact(standard_artifacts.Examples, f'{number}/examples')
        examples.split_names = json.dumps([features.TEST_SPLIT])
        (Path(examples.uri) / 'Split-test').mkdir()
        with tf.io.TFRecordWriter(f'{examples.uri}/Split-test/data.gz', 'GZIP') as writer:
            for label, words in pairs:
                example = tf.train.Example()
                example.features.feature[features.LABEL_KEY].int64_list.value.append(label)
                example.features.feature[features.ID_KEY].bytes_list.value.append(words.encode())
                writer.write(example.SerializeToString())
        model, baseline = (
            make_artifact(kind, f'{number}/{kind.__name__}') for kind in (standard_artifacts.Model, Baseline)
        )
        save(model, 0, make_model)
        if contract is not None:
            file = Path(model.uri) / 'Format-Serving' / CONTRACT_FILE
            file.parent.mkdir()
            file.write_text(contract.to_json())
        if baseline_version is not None:
            save(baseline, 1, make_model)
        if kept is not None:
            shutil.copytree(kept.parent, Path(baseline.uri) / 'Format-Serving' / PREDICTIONS_FILE.parent)
        (Path(baseline.uri) / BASELINE_FILE).write_text(json.dumps(BaselineInfo(baseline_version)._asdict()))
        evaluation = make_artifact(standard_artifacts.ModelEvaluation, f'{number}/evaluation')
        blessing = make_artifact(standard_artifacts.ModelBlessing, f'{number}/blessing')
        context = Executor.Context(beam_pipeline_args=list(BeamConfig().args), tmp_dir=str(tmp_path), unique_id='1')
        Executor(context).Do(
            {'examples': [examples], 'model': [model], 'baseline': [baseline]},
            {'evaluation': [evaluation], 'blessing': [blessing]},
            {
                'eval_config': proto_utils.proto_to_json(make_eval_config()),
                'example_splits': json.dumps([features.TEST_SPLIT]),
                'gate': json.dumps(gate),
            },
        )
        verdict = read_verdict(evaluation.uri)
        assert bool(blessing.get_int_custom_property('blessed')) == verdict.is_blessed
        assert [path.name for path in Path(blessing.uri).iterdir()] == [
            'BLESSED' if verdict.is_blessed else 'NOT_BLESSED'
        ]
        return verdict

    return run


def predict_rightly(count: int) -> list[tuple[int, str]]:
    return [(label, str(label)) for label in range(NUM_CLASSES) for _ in range(count)]


def test_a_model_that_is_right_is_blessed(evaluate):
    verdict = evaluate(predict_rightly(4), {})
    assert verdict.is_blessed
    assert verdict.overall.sentence == 'accuracy 1.000 (95% interval 0.912 to 1.000) >= 0.900 on 40 test images'
    (error,) = [reason.value for reason in verdict.reasons if reason.metric == 'calibration_error']
    assert error == pytest.approx(0.09), 'always right, with a confidence of 0.91'
    assert verdict.baseline == 'no baseline (nothing was serving when this model was first evaluated)'


def test_a_class_below_the_floor_refuses_a_model_whose_accuracy_is_fine(evaluate):
    pairs = predict_rightly(4)
    pairs[12:14] = [(3, '5')] * 2
    assert list_broken(evaluate(pairs, {'accuracy': 0.9, 'recall': 0.75}).reasons) == [
        'recall of cat 0.500 (95% interval 0.150 to 0.850) < 0.750 on 4'
    ]


def test_a_model_of_other_classes_is_judged_by_their_names(evaluate):
    pairs = [(label, str(label)) for label in range(3) for _ in range(10)]
    pairs[20:26] = [(2, '0')] * 6
    contract = DataContract(('ant', 'bee', 'wasp'), 256, False)
    gate = {'accuracy': 0.3, 'recall': 0, 'recall_by_class': ['wasp=0.5', 'ant=0.5']}
    verdict = evaluate(pairs, gate, make_model=functools.partial(Echo, num_classes=3), contract=contract)
    assert list_broken(verdict.reasons) == ['recall of wasp 0.400 (95% interval 0.168 to 0.687) < 0.500 on 10']
    assert {reason.slice for reason in verdict.reasons} == {'', *contract.class_names}


def test_a_floor_for_a_class_that_the_model_does_not_know_is_refused_before_anything_is_predicted(evaluate, tmp_path):
    with pytest.raises(UsageError, match=r"the class 'kat', .* Did you mean cat\?"):
        evaluate(predict_rightly(1), {'recall_by_class': ['kat=0.9']})
    assert list((tmp_path / '1' / 'evaluation').glob('*')) == []


def test_a_constant_model_is_refused(evaluate):
    verdict = evaluate([(label, '0') for label, _ in predict_rightly(2)], {'recall': 0, 'calibration_error': 1})
    assert list_broken(verdict.reasons) == [
        'accuracy 0.100 (95% interval 0.028 to 0.301) < 0.900 on 20 test images',
        'accuracy 0.100 (95% interval 0.028 to 0.301) on 20 test images is not better than always answering airplane, '
        'which is 0.100',
    ]


def test_a_model_whose_probabilities_are_not_numbers_is_refused_whatever_the_bounds(evaluate):
    pairs = [(label, 'nan') for label, _ in predict_rightly(2)]
    verdict = evaluate(pairs, {'accuracy': 0, 'recall': 0, 'calibration_error': 1})
    assert list_broken(verdict.reasons) == ['20 of 20 test images get probabilities that are not numbers']


def test_the_candidate_is_compared_with_the_baseline_image_by_image(evaluate):
    # Only the candidate is right on one image, only the baseline on nine, both on thirty.
    pairs = [(label, f'{label} {label}') for label, _ in predict_rightly(3)]
    pairs += [(0, '0 1'), *[(label, f'0 {label}') for label in range(1, 10)]]
    verdict = evaluate(pairs, {'accuracy': 0.5, 'recall': 0, 'calibration_error': 1}, baseline_version=7)
    assert verdict.overall.value == pytest.approx(31 / 40)
    (sentence,) = list_broken(verdict.reasons)
    assert sentence.startswith('accuracy -0.200 (95% interval ')
    assert sentence.endswith(' against version 7 on 40: worse')


def test_a_model_like_its_baseline_is_not_called_worse(evaluate):
    pairs = [(label, f'{label} {label}') for label, _ in predict_rightly(3)] + [(0, '1 0'), (1, '0 1')]
    verdict = evaluate(pairs, {}, baseline_version=7)
    assert verdict.is_blessed
    assert verdict.baseline.endswith(': equal within chance')


def test_the_metrics_are_those_of_tfma_running_both_models_itself(evaluate, tmp_path):
    pairs = [(index % NUM_CLASSES, f'name {index}') for index in range(200)]
    evaluate(pairs, {}, baseline_version=7, make_model=Noisy)
    ours = read_metrics(str(tmp_path / '1' / 'evaluation'))
    models = [f'{tmp_path}/1/{name}/Format-Serving' for name in ('Model', 'Baseline')]
    theirs = evaluate_with_tfma(models, f'{tmp_path}/1/examples/Split-test/*', str(tmp_path / 'tfma'))
    assert ours.keys() == theirs.keys()
    for label, metrics in theirs.items():
        assert ours[label] == pytest.approx(metrics, abs=1e-6, nan_ok=True)
    assert theirs[None]['not_finite'] > 0


def test_a_baseline_predicts_again_only_where_the_test_split_has_changed(evaluate, tmp_path, monkeypatch):
    predicted, predict_records = [], component.predict_records

    def predict_and_count(saved_model, records, what):
        predicted.append(what)
        return predict_records(saved_model, records, what)

    monkeypatch.setattr(component, 'predict_records', predict_and_count)
    pairs = [(label, f'{label} {label}') for label, _ in predict_rightly(3)] + [(0, '0 1'), (1, '0 1'), (2, '0 2')]
    anew = evaluate(pairs, {}, baseline_version=7)
    assert predicted == ['the new model', 'version 7']
    assert anew.baseline_predictions == 'version 7 predicted the test images again: it was pushed without predictions'

    # What a push keeps of the evaluation in which the baseline was the new model: the same records in other files.
    kept = tmp_path / 'kept' / PREDICTIONS_FILE.name
    kept.parent.mkdir()
    records = read_records([f'{tmp_path}/1/examples/Split-test/*'])
    write_predictions(kept, records, predict_records(f'{tmp_path}/1/Baseline/Format-Serving', records, ''))
    again = evaluate(pairs[::-1], {}, baseline_version=7, kept=kept)
    assert predicted[2:] == ['the new model']
    assert again.baseline_predictions.startswith('the predictions kept with version 7 were used')
    assert again._replace(baseline_predictions='') == anew._replace(baseline_predictions='')

    changed = evaluate(pairs[1:], {}, baseline_version=7, kept=kept)
    assert predicted[3:] == ['the new model', 'version 7']
    assert changed.baseline_predictions.endswith('its predictions are for a different test split')


def test_the_predictions_of_the_new_model_are_in_the_evaluation(evaluate, tmp_path):
    evaluate(predict_rightly(1), {})
    records = read_records([f'{tmp_path}/1/examples/Split-test/*'])
    found, _ = component.find_predictions(tmp_path / '1' / 'evaluation' / PREDICTIONS_FILE.name, records, NUM_CLASSES)
    assert found.argmax(axis=1).tolist() == records.labels.tolist()
    assert not [file for file in (tmp_path / '1' / 'evaluation').iterdir() if file.is_dir()]
    reference = read_reference(tmp_path / '1' / 'evaluation' / REFERENCE_FILE.name)
    assert (reference.count, sum(reference.predicted)) == (len(records.ids), len(records.ids))
    assert reference.predicted == tuple(np.bincount(records.labels, minlength=NUM_CLASSES))
