"""Which version a training begins with."""

import pytest
from tfx.types import standard_artifacts

from components.base_model import Driver, Executor, find_base_model
from components.contract import KERAS_MODEL_FILE
from components.errors import PipelineError, UsageError
from components.serving.versions import INFO_FILE, MODEL_FILE
from pipeline.summaries import summarize


@pytest.fixture
def push(place):
    """Puts a version into a serving folder."""

    def run(number: int, *, has_keras: bool = True) -> None:
        folder = place / str(number)
        (folder / INFO_FILE).parent.mkdir(parents=True)
        (folder / MODEL_FILE).write_bytes(b'')
        (folder / INFO_FILE).write_text(f'{{"model": "fingerprint {number}"}}')
        if has_keras:
            (folder / KERAS_MODEL_FILE).write_bytes(b'')

    return run


def test_it_is_the_serving_version(place, push):
    assert find_base_model('serving', str(place)) is None
    push(1)
    push(2)
    assert find_base_model('serving', str(place)).name == '2'


def test_it_is_the_version_that_the_setting_names(place, push):
    push(1)
    push(2)
    assert find_base_model(str(place / '1'), '/elsewhere').name == '1'
    assert find_base_model(str(place), '/elsewhere').name == '2'


def test_a_folder_without_a_version_is_refused(tmp_path):
    with pytest.raises(UsageError, match=f'trainer.warm_start={tmp_path}: there is no pushed version'):
        find_base_model(str(tmp_path), '/elsewhere')


def test_a_version_without_a_keras_model_is_refused(place, push):
    push(1, has_keras=False)
    with pytest.raises(PipelineError, match=r'1 has no assets\.extra/model\.keras, because it was pushed before'):
        find_base_model('serving', str(place))


def test_the_cache_key_changes_with_the_version(place, push):
    driver, properties = Driver(None), {'warm_start': 'serving', 'serving': str(place)}
    seen = [driver.identify({}, properties)]
    for number in (1, 2):
        push(number)
        seen.append(driver.identify({}, properties))
    assert seen == ['', '1 fingerprint 1', '2 fingerprint 2']


@pytest.mark.parametrize('count', [0, 1])
def test_the_artifact_has_the_version_and_its_number(place, push, tmp_path, count):
    for number in range(1, count + 1):
        push(number)
    model = standard_artifacts.Model()
    model.uri = str(tmp_path / 'artifact')
    (tmp_path / 'artifact').mkdir()
    Executor().Do({}, {'model': [model]}, {'warm_start': 'serving', 'serving': str(place)})
    expected = 'the training begins with version 1' if count else 'none: nothing is serving'
    assert summarize('BaseModelFinder', {'model': [model]}, None) == expected
    assert (tmp_path / 'artifact' / 'Format-Serving' / KERAS_MODEL_FILE).exists() == bool(count)
