"""Which model a new one is compared with."""

import json

import pytest
import tensorflow as tf
from tfx.orchestration.portable import data_types
from tfx.types import standard_artifacts

from components.baseline import (
    Baseline,
    Driver,
    Executor,
    check_comparable,
    find_baseline,
    read_baseline,
    read_fingerprint,
)
from components.errors import PipelineError
from components.places import remove_folder
from components.serving import version_labels, versions


def save_model(folder, weight: float, signature: str = 'examples') -> None:
    module = tf.Module()
    module.weight = tf.Variable([weight])
    multiply = tf.function(lambda x: x * module.weight).get_concrete_function(tf.zeros(1))
    tf.saved_model.save(module, str(folder), {signature: multiply})


@pytest.fixture
def serving(place):
    return place / 'serving'


@pytest.fixture
def push(serving):
    """Puts a version into the serving folder, as the Pusher describes it."""

    def run(number: int, model: str, baseline: int | None) -> None:
        folder = serving / str(number)
        (folder / versions.INFO_FILE).parent.mkdir(parents=True)
        (folder / 'saved_model.pb').write_bytes(b'')
        (folder / versions.INFO_FILE).write_text(json.dumps({'model': model, 'baseline': baseline}))

    return run


def test_a_first_run_has_no_baseline(serving):
    assert find_baseline(serving, 'candidate') is None


def test_the_baseline_is_the_newest_version_or_the_stable_one(serving, push):
    push(5, 'a', None)
    push(7, 'b', 5)
    assert find_baseline(serving, 'candidate').name == '7'
    version_labels.promote(serving, 5, 'stable', None)
    assert find_baseline(serving, 'candidate').name == '5'


def test_a_model_that_serves_already_is_compared_with_what_it_was_compared_with(serving, push):
    push(5, 'a', None)
    assert find_baseline(serving, 'a') is None
    push(7, 'b', 5)
    assert find_baseline(serving, 'b').name == '5'
    remove_folder(serving / '5')
    assert find_baseline(serving, 'b') is None, 'pruned'


def test_a_fingerprint_tells_weights_apart_and_models_without_one_are_no_models_twin(tmp_path):
    for name, weight in (('a', 1.0), ('b', 2.0), ('c', 1.0)):
        save_model(tmp_path / name, weight)
    a, b, c = (read_fingerprint(str(tmp_path / name)) for name in 'abc')
    assert a == c
    assert a != b
    (tmp_path / 'a' / 'fingerprint.pb').unlink()
    assert read_fingerprint(str(tmp_path / 'a')) is None


def publish_model(serving, weight: float, signature: str = 'examples') -> None:
    """Makes it version 7."""
    with versions.stage_version(serving) as staged:
        save_model(staged / 'model', weight, signature)
        versions.publish(staged / 'model', serving, 7)


def test_the_component_copies_the_serving_model_and_its_cache_key_follows_it(serving, tmp_path):
    model, baseline = standard_artifacts.Model(), Baseline()
    model.uri, baseline.uri = str(tmp_path / 'model'), str(tmp_path / 'baseline')
    (tmp_path / 'baseline').mkdir()
    save_model(tmp_path / 'model' / 'Format-Serving', 1.0)
    inputs, properties = {'model': [model]}, {'serving': str(serving)}

    def identify() -> str:
        info = data_types.ExecutionInfo(input_dict=inputs, exec_properties=properties)
        return Driver(None).run(info).exec_properties['identity'].string_value

    assert identify() == ''
    Executor().Do(inputs, {'baseline': [baseline]}, properties)
    assert read_baseline(baseline.uri) is None
    publish_model(serving, 2.0)
    assert identify() == '7'
    Executor().Do(inputs, {'baseline': [baseline]}, properties)
    assert read_baseline(baseline.uri) == 7
    assert tf.saved_model.contains_saved_model(str(tmp_path / 'baseline' / 'Format-Serving'))


def test_a_version_of_another_pipeline_is_one_sentence(serving):
    publish_model(serving, 2.0, 'predict')
    with pytest.raises(PipelineError, match=r'/7, which is serving, has no signature `examples`, .*; promote'):
        check_comparable(serving / '7')
