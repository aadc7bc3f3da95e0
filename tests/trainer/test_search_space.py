"""The search space: what is searched, and how its values become settings of the Trainer."""

import dataclasses
import json

import pytest

from components.hyperparameters import decode_hyperparameters, describe_hyperparameters
from trainer.config import TrainerConfig
from trainer.search_space import apply_hyperparameters, list_configured, make_search_space

CONFIG = TrainerConfig(head_units=(64,), learning_rate=0.5)


def test_every_hyperparameter_is_a_setting_of_the_trainer():
    names = {parameter.name for parameter in make_search_space().space}
    assert names < {field.name for field in dataclasses.fields(TrainerConfig)}
    assert not names & {'backbone', 'image_size', 'train_from', 'pooling', 'augmentation', 'epochs'}, 'they stay'


def test_every_value_of_the_space_is_one_that_the_setting_takes():
    for parameter in make_search_space().space:
        for value in getattr(parameter, 'values', None) or [parameter.min_value, parameter.max_value]:
            apply_hyperparameters(CONFIG, decode_hyperparameters({'values': {parameter.name: value}}))


@pytest.mark.parametrize('units', [(), (64,), (256, 128)])
def test_the_configured_values_give_the_configuration_again(units):
    config = dataclasses.replace(CONFIG, head_units=units)
    values = list_configured(config)
    assert ('dropout' in values) == bool(units)
    read = json.loads(json.dumps({'values': values}))  # as TFX writes them
    assert apply_hyperparameters(config, decode_hyperparameters(read)) == config


def test_hyperparameters_take_the_place_of_settings_by_name():
    config = apply_hyperparameters(CONFIG, {'head_units': [32, 16], 'optimizer': 'sgd'})
    assert config == dataclasses.replace(CONFIG, head_units=(32, 16), optimizer='sgd')


def test_settings_are_described_in_a_line():
    settings = {'learning_rate': 0.00123456, 'head_units': [128], 'optimizer': 'adam'}
    assert describe_hyperparameters(settings) == 'learning_rate=0.00123, head_units=[128], optimizer=adam'
