"""Which version a new model is compared with, and what is said where there is none."""

import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.orchestration.portable import data_types
from tfx.types import standard_artifacts

from components.baseline import (
    BASELINE_FILE,
    Baseline,
    BaselineInfo,
    Driver,
    Executor,
    check_comparable,
    find_baseline,
    read_baseline,
    read_fingerprint,
)
from components.contract import CONTRACT_FILE, DataContract
from components.data.cifar10 import CONTRACT
from components.errors import PipelineError
from components.places import remove_folder
from components.serving import version_labels, versions
from pipeline.summaries import summarize

ANIMALS = DataContract(('cat', 'cow', 'dog'), 256, False)


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
    """Puts a version into the serving folder, with the fingerprint and the baseline that the Pusher writes."""

    def run(number: int, model: str, baseline: int | None) -> None:
        folder = serving / str(number)
        (folder / versions.INFO_FILE).parent.mkdir(parents=True)
        (folder / 'saved_model.pb').write_bytes(b'')
        (folder / versions.INFO_FILE).write_text(json.dumps({'model': model, 'baseline': baseline}))

    return run


def test_a_first_run_has_no_baseline(serving):
    version, info = find_baseline(serving, 'candidate', CONTRACT)
    assert (version, info) == (None, BaselineInfo())
    assert info.describe_absence() == 'nothing was serving when this model was first evaluated'


def test_the_baseline_is_the_newest_version_or_the_stable_one(serving, push):
    push(5, 'a', None)
    push(7, 'b', 5)
    assert find_baseline(serving, 'candidate', CONTRACT) == (serving / '7', BaselineInfo(7))
    version_labels.promote(serving, 5, 'stable')
    assert find_baseline(serving, 'candidate', CONTRACT) == (serving / '5', BaselineInfo(5))


def test_a_model_that_is_serving_keeps_the_baseline_that_it_had_when_it_was_pushed(serving, push):
    push(5, 'a', None)
    push(7, 'b', 5)
    assert find_baseline(serving, 'b', CONTRACT) == (serving / '5', BaselineInfo(5, candidate=7))


def test_a_model_that_is_serving_and_was_the_first_one_has_no_baseline(serving, push):
    push(5, 'a', None)
    version_labels.promote(serving, 5, 'stable')
    version, info = find_baseline(serving, 'a', CONTRACT)
    assert (version, info) == (None, BaselineInfo(candidate=5))
    expected = 'this model is serving already, as version 5, and nothing was serving when it was pushed'
    assert info.describe_absence() == expected


def test_a_model_that_is_serving_and_whose_baseline_was_removed_has_none(serving, push):
    push(5, 'a', None)
    push(7, 'b', 5)
    remove_folder(serving / '5')
    version, info = find_baseline(serving, 'b', CONTRACT)
    assert (version, info) == (None, BaselineInfo(candidate=7, removed=5))
    assert info.describe_absence() == (
        'this model is serving already, as version 7, and version 5, which it was compared with when it was pushed, '
        'has been removed'
    )


@pytest.mark.parametrize(
    ('served', 'difference'),
    [
        (ANIMALS, 'other classes: 3 classes (cat, cow, dog) at 256 pixels'),
        (CONTRACT._replace(image_size=64), f'another image size: {CONTRACT._replace(image_size=64).describe()}'),
        (
            CONTRACT._replace(class_names=CONTRACT.class_names[::-1]),
            'the same classes in another order: 10 classes (truck, ',
        ),
    ],
)
def test_a_version_of_other_classes_is_named_and_not_compared(serving, push, served, difference):
    push(7, 'a', None)
    (serving / '7' / CONTRACT_FILE).write_text(served.to_json())
    version, info = find_baseline(serving, 'candidate', CONTRACT)
    assert (version, info.version, info.unlike) == (None, None, 7)
    assert info.describe_absence().startswith(f'version 7 has {difference}')
    assert find_baseline(serving, 'candidate', served) == (serving / '7', BaselineInfo(7))


def test_a_model_that_was_pushed_beside_other_classes_says_so(serving, push):
    push(8, 'a', None)
    (serving / '8' / versions.INFO_FILE).write_text(json.dumps({'model': 'a', 'baseline': None, 'unlike': 7}))
    version, info = find_baseline(serving, 'a', CONTRACT)
    assert (version, info) == (None, BaselineInfo(candidate=8, unlike=7))
    assert info.describe_absence() == (
        'this model is serving already, as version 8, and version 7, which was serving before, has other classes or '
        'images'
    )


@pytest.mark.parametrize(
    ('info', 'expected'),
    [
        (BaselineInfo(unlike=7, difference='other classes: x'), 'none: version 7 has other classes: x'),
        (BaselineInfo(7), 'version 7'),
        (BaselineInfo(5, candidate=7), 'version 5'),
        (BaselineInfo(), 'none: nothing was serving when this model was first evaluated'),
        (
            BaselineInfo(candidate=7),
            'none: this model is serving already, as version 7, and nothing was serving when it was pushed',
        ),
    ],
)
def test_the_line_of_a_run_says_which_baseline_or_why_there_is_none(info, expected, tmp_path):
    baseline = Baseline()
    baseline.uri = str(tmp_path)
    (tmp_path / BASELINE_FILE).write_text(json.dumps(info._asdict()))
    assert summarize('BaselineFinder', {'baseline': [baseline]}, None) == expected


def test_a_fingerprint_tells_weights_apart_and_may_be_missing(tmp_path):
    for name, weight in (('a', 1.0), ('b', 2.0), ('c', 1.0)):
        save_model(tmp_path / name, weight)
    a, b, c = (read_fingerprint(str(tmp_path / name)) for name in 'abc')
    assert a == c
    assert a != b
    (tmp_path / 'a' / 'fingerprint.pb').unlink()
    assert read_fingerprint(str(tmp_path / 'a')) is None


def publish_model(serving, weight: float, signature: str = 'examples') -> None:
    """Saves a model with one weight and makes it version 7."""
    with versions.stage_version(serving) as staged:
        save_model(staged / 'model', weight, signature)
        versions.publish(staged / 'model', serving, 7)


@pytest.fixture
def find(serving, tmp_path):
    """Runs the driver and the executor as TFX does; gives the identity in the cache key, and the artifact's folder."""
    model, baseline = standard_artifacts.Model(), Baseline()
    model.uri, baseline.uri = str(tmp_path / 'model'), str(tmp_path / 'baseline')
    save_model(tmp_path / 'model' / 'Format-Serving', 1.0)
    inputs, properties = {'model': [model]}, {'serving': str(serving)}

    def run() -> tuple[str, Path]:
        shutil.rmtree(baseline.uri, ignore_errors=True)
        Path(baseline.uri).mkdir()
        info = data_types.ExecutionInfo(input_dict=inputs, exec_properties=properties)
        identity = Driver(None).run(info).exec_properties['identity'].string_value
        Executor().Do(inputs, {'baseline': [baseline]}, properties)
        return identity, Path(baseline.uri)

    return run


def test_the_component_keeps_the_serving_model_and_its_cache_key_follows_it(serving, find):
    identity, folder = find()
    assert (identity, read_baseline(str(folder))) == ('', BaselineInfo())
    publish_model(serving, 2.0)
    identity, folder = find()
    assert (identity, read_baseline(str(folder))) == ('7', BaselineInfo(7))
    assert tf.saved_model.contains_saved_model(str(folder / 'Format-Serving'))


def describe(serving, number: int, model: str, baseline: int | None, unlike: int | None = None) -> None:
    """Writes what the Pusher writes about a version."""
    info = serving / str(number) / versions.INFO_FILE
    if isinstance(info, Path):
        info.parent.mkdir(parents=True, exist_ok=True)
    info.write_text(json.dumps({'model': model, 'baseline': baseline, 'unlike': unlike}))


def test_the_cache_key_is_the_same_after_the_first_model_was_pushed_and_not_once_a_baseline_is_removed(
    serving, find, tmp_path
):
    fingerprint = read_fingerprint(str(tmp_path / 'model' / 'Format-Serving'))
    publish_model(serving, 1.0)
    describe(serving, 7, fingerprint, None)
    identity, folder = find()
    assert (identity, read_baseline(str(folder))) == ('', BaselineInfo(candidate=7))
    describe(serving, 7, fingerprint, 5)
    identity, folder = find()
    assert (identity, read_baseline(str(folder))) == ('5 removed', BaselineInfo(candidate=7, removed=5))


def test_the_cache_key_names_a_version_of_other_classes_and_is_the_same_after_the_push(serving, find, tmp_path):
    publish_model(serving, 2.0)
    describe(serving, 7, 'another', None)
    (serving / '7' / CONTRACT_FILE).write_text(ANIMALS.to_json())
    identity, folder = find()
    assert (identity, read_baseline(str(folder)).unlike) == ('7 unlike', 7)
    assert not (folder / 'Format-Serving').exists()
    describe(serving, 7, read_fingerprint(str(tmp_path / 'model' / 'Format-Serving')), None, unlike=5)
    assert find()[0] == '5 unlike'


def test_the_kept_model_is_linked_and_outlives_the_version(tmp_path):
    serving = tmp_path / 'serving'
    publish_model(serving, 2.0)
    model, baseline = standard_artifacts.Model(), Baseline()
    model.uri, baseline.uri = str(tmp_path / 'model'), str(tmp_path / 'baseline')
    save_model(tmp_path / 'model' / 'Format-Serving', 1.0)
    Path(baseline.uri).mkdir()
    Executor().Do({'model': [model]}, {'baseline': [baseline]}, {'serving': str(serving)})
    kept = Path(baseline.uri) / 'Format-Serving'
    for file in (file.relative_to(kept) for file in kept.rglob('*') if file.is_file()):
        assert (kept / file).samefile(serving / '7' / file)
    remove_folder(serving / '7')
    assert tf.saved_model.contains_saved_model(str(kept))


def test_a_version_of_a_different_pipeline_is_refused_in_one_sentence(serving):
    publish_model(serving, 2.0, 'predict')
    with pytest.raises(PipelineError, match=r'/7, which is serving, has no signature `examples`, .*; promote'):
        check_comparable(serving / '7')
