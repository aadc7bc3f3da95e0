"""Weights from a version: what fits, and what is refused by name."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from components.contract import BASE_MODEL_FILE, CONTRACT_FILE, KERAS_MODEL_FILE
from components.data.cifar10 import CONTRACT
from components.errors import WeightsError
from tests.conftest import IMAGE_SIZE
from trainer.config import TrainerConfig
from trainer.model import build_backbone, build_model, describe_network
from trainer.warm_start import BaseModel, find_base_model, load_base_model

CONFIG = TrainerConfig(image_size=IMAGE_SIZE, head_units=(16,))  # that of the fixture `model`


@pytest.fixture(scope='module')
def base(model, tmp_path_factory) -> BaseModel:
    folder = tmp_path_factory.mktemp('base') / 'Format-Serving'
    (folder / KERAS_MODEL_FILE).parent.mkdir(parents=True)
    model.save(folder / KERAS_MODEL_FILE)
    (folder / CONTRACT_FILE).write_text(CONTRACT.to_json())
    (folder.parent / BASE_MODEL_FILE).write_text('{"version": "7"}')
    return BaseModel(str(folder), '7')


def build(classes: int = 10, **changes) -> keras.Model:
    config = dataclasses.replace(CONFIG, **changes)
    return build_model(config, build_backbone(config), classes)


def test_every_weight_is_taken(model, base):
    fresh = build()
    load_base_model(fresh, base, CONTRACT)
    for one, other in zip(model.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ('changes', 'difference'),
    [
        ({'backbone': 'vgg16'}, 'trainer.backbone is resnet50 there and vgg16 here'),
        ({'head_units': ()}, 'trainer.head_units is 16 there and empty here'),
        ({'head_batchnorm': False}, 'trainer.head_batchnorm is true there and false here'),
        ({'pooling': 'average'}, 'trainer.pooling is flatten there and average here'),
        ({'image_size': 64}, 'trainer.image_size is 32 there and 64 here'),
    ],
)
def test_a_setting_that_differs_is_named(base, changes, difference):
    with pytest.raises(WeightsError) as raised:
        load_base_model(build(**changes), base, CONTRACT)
    assert f'with the weights of version 7, because {difference}' in str(raised.value)


def test_classes_that_differ_are_named(base):
    contract = CONTRACT._replace(class_names=('cat', 'dog'))
    with pytest.raises(WeightsError, match=r'the classes are airplane,automobile,.* there and cat,dog here'):
        load_base_model(build(classes=2), base, contract)


def test_the_image_size_of_a_base_model_does_not_matter_where_the_head_averages():
    assert 'image_size' not in describe_network(build(pooling='average'))


def test_a_damaged_file_is_a_sentence(base, tmp_path):
    folder = tmp_path / 'Format-Serving'
    (folder / KERAS_MODEL_FILE).parent.mkdir(parents=True)
    (folder / KERAS_MODEL_FILE).write_bytes(b'nonsense')
    with pytest.raises(WeightsError, match='The Keras model of version 8 cannot be read'):
        load_base_model(build(), BaseModel(str(folder), '8'), CONTRACT)


def test_without_a_version_there_is_no_base_model(base, tmp_path):
    assert find_base_model(None) is None
    (tmp_path / BASE_MODEL_FILE).write_text('{"version": null}')
    assert find_base_model(str(tmp_path / 'Format-Serving')) is None
    assert find_base_model(base.folder) == base


def test_an_artifact_that_is_not_there_does_not_begin_another_training(tmp_path):
    with pytest.raises(WeightsError, match=r'base_model\.json cannot be read .* or set trainer\.warm_start=none'):
        find_base_model(str(tmp_path / 'Format-Serving'))


def test_the_digest_tells_base_models_apart(base, tmp_path):
    folder = tmp_path / 'Format-Serving'
    (folder / KERAS_MODEL_FILE).parent.mkdir(parents=True)
    content = Path(base.folder, KERAS_MODEL_FILE).read_bytes()
    (folder / KERAS_MODEL_FILE).write_bytes(content)
    assert BaseModel(str(folder), '8').compute_digest() == base.compute_digest()
    (folder / KERAS_MODEL_FILE).write_bytes(content + b'x')
    assert BaseModel(str(folder), '8').compute_digest() != base.compute_digest()
