"""Which version of a serving folder answers."""

from pathlib import Path

import pytest

from components.contract import CONTRACT_FILE, DataContract
from components.errors import UsageError
from components.serving.models_config import CONFIG_FILE
from components.serving.versions import MODEL_FILE
from pipeline.local_model import choose_version, load_model
from tests.pipeline.server.small_model import encode_image, save_version


@pytest.fixture
def serving(tmp_path) -> Path:
    """The versions 3, 4 and 5, of which 3 is stable and 4 the canary."""
    for number in (3, 4, 5):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / MODEL_FILE).touch()
    labels = 'version_labels { key: "stable" value: 3 } version_labels { key: "canary" value: 4 }'
    (tmp_path / CONFIG_FILE).write_text(f'model_config_list {{ config {{ name: "cifar10" {labels} }} }}')
    return tmp_path


def test_the_stable_version_is_chosen_or_the_one_that_was_asked_for(serving):
    assert choose_version(serving).name == '3'
    assert choose_version(serving, label='canary').name == '4'
    assert choose_version(serving, number=5).name == '5'
    assert choose_version(serving / '5').name == '5'
    (serving / CONFIG_FILE).unlink()
    assert choose_version(serving).name == '5'


@pytest.mark.parametrize(
    ('folder', 'asked', 'message'),
    [
        ('.', {'label': 'best'}, 'has the version label best; there are: canary, stable'),
        ('.', {'number': 9}, 'has no version 9; there are: 3, 4, 5'),
        ('4', {'label': 'stable'}, 'is one version already'),
        ('4', {'number': 4}, 'is one version already'),
        ('none', {}, 'holds neither a SavedModel nor numbered versions'),
    ],
)
def test_what_there_is_not_is_refused(serving, folder, asked, message):
    with pytest.raises(UsageError, match=message):
        choose_version(serving / folder, **asked)


def test_without_labels_the_refusal_says_how_to_give_one(serving):
    (serving / CONFIG_FILE).unlink()
    with pytest.raises(UsageError, match='there are: none; `promote` gives one'):
        choose_version(serving, label='stable')


def test_a_loaded_model_has_the_class_names_and_the_image_size_of_its_contract(tmp_path):
    folder = save_version(tmp_path, 1)
    contract = DataContract(('version 0', 'version 1', 'version 2'), 256, is_square=False)
    (folder / CONTRACT_FILE).parent.mkdir()
    (folder / CONTRACT_FILE).write_text(contract.to_json())
    with load_model(tmp_path) as classifier:
        (answer,) = classifier.classify([encode_image()])
        assert (answer.class_name, len(answer.probabilities)) == ('version 1', 3)
        assert classifier.name_classes(answer) == ['version 0', 'version 1', 'version 2']
        assert classifier.image_size == 256
    (folder / CONTRACT_FILE).unlink()
    with load_model(tmp_path) as classifier:
        assert classifier.name_classes(answer) is None, 'what it answers does not fit CIFAR-10'
