from dataclasses import FrozenInstanceError, fields

import pytest

from components.errors import UsageError
from pipeline.config import PRESETS, PipelineConfig, SampleConfig
from pipeline.evaluation import GateConfig
from pipeline.overrides import apply_overrides, list_fields
from trainer.config import TrainerConfig


@pytest.fixture
def config() -> PipelineConfig:
    return PRESETS['cifar10']('/root-folder')


@pytest.mark.parametrize(
    ('assignment', 'section', 'name', 'value'),
    [
        ('trainer.batch_size=64', 'trainer', 'batch_size', 64),
        ('trainer.learning_rate=1e-3', 'trainer', 'learning_rate', 1e-3),
        ('trainer.head_units=128,64', 'trainer', 'head_units', (128, 64)),
        ('trainer.head_units=[128, 64]', 'trainer', 'head_units', (128, 64)),
        ('trainer.head_units=', 'trainer', 'head_units', ()),
        ('trainer.precision=float32', 'trainer', 'precision', 'float32'),
        ('trainer.weights=/a=b.h5', 'trainer', 'weights', '/a=b.h5'),
        ('gate.accuracy=0.94', 'gate', 'accuracy', 0.94),
        ('beam.args=--a=1,--b=2', 'beam', 'args', ('--a=1', '--b=2')),
    ],
)
def test_any_field_can_be_set(config, assignment, section, name, value):
    changed = apply_overrides(config, [assignment])
    assert getattr(getattr(changed, section), name) == value
    assert changed != config


def test_an_optional_field_takes_a_value_or_none(config):
    assert apply_overrides(config, ['data=/d']).data == '/d'
    assert apply_overrides(config, ['data=/d', 'data=none']).data is None


@pytest.mark.parametrize(
    ('assignment', 'sentence'),
    [
        ('trainer.batchsize=3', r'no such setting; did you mean trainer\.batch_size\?'),
        ('batch_size=3', r'did you mean trainer\.batch_size\?'),
        ('zzz=3', r'no such setting; there are name, root,'),
        ('trainer=3', 'no such setting'),
        ('trainer.batch_size', 'takes KEY=VALUE'),
        ('trainer.batch_size=many', r"takes a whole number\. Received: 'many'"),
        ('trainer.batch_size=1.5', r"takes a whole number\. Received: '1\.5'"),
        ('trainer.learning_rate=fast', 'takes a number'),
        ('trainer.head_units=a,b', 'takes int values with commas'),
        ('trainer.head_units=[1', 'takes int values with commas'),
        ('trainer.precision=float8', 'takes one of auto, float32'),
        ('trainer.batch_size=0', r'trainer\.batch_size must be at least 1\. Received: 0'),
        ('trainer.image_size=16', r'must be at least 32\. Received: 16'),
        ('trainer.dropout=1', r'must be 0 to below 1\. Received: 1\.0'),
        ('gate.accuracy=94', r'gate\.accuracy must be 0 to 1\. Received: 94\.0'),
        ('sample.train=5', r'sample\.train must be at least 50'),
    ],
)
def test_what_cannot_be_set_is_said_in_one_sentence(config, assignment, sentence):
    with pytest.raises(UsageError, match=sentence):
        apply_overrides(config, [assignment])


def test_the_cifar10_preset_is_the_published_recipe(config):
    """Values of the published walk-through."""
    assert config.trainer == TrainerConfig(
        image_size=224,
        weights='imagenet',
        train_from='conv5',
        head_units=(256, 128, 64),
        dropout=0.5,
        batchnorm_momentum=0.99,
        learning_rate=2e-5,
        batch_size=32,
        epochs=10,
    )


def test_configs_are_frozen(config):
    with pytest.raises(FrozenInstanceError):
        config.trainer.epochs = 3


def test_every_setting_is_documented_and_listed(config):
    listed = list_fields(config)
    for prefix, section in (('trainer.', TrainerConfig), ('gate.', GateConfig), ('sample.', SampleConfig)):
        for field in fields(section):
            assert prefix + field.name in listed
