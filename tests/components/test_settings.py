"""Config classes: they validate each field, and travel as JSON."""

import json
from dataclasses import asdict
from typing import get_args, get_type_hints

import pytest

from components.data_gate.config import DataGateConfig
from components.errors import UsageError
from components.model_gate.config import GateConfig
from components.serving_check.config import ServingCheckConfig
from components.settings import Settings
from trainer.backbones import BACKBONES
from trainer.config import ExportConfig, TrainerConfig

TRAVELLING = [DataGateConfig, GateConfig, ServingCheckConfig, TrainerConfig, ExportConfig]


@pytest.mark.parametrize(
    ('section', 'values', 'sentence'),
    [
        (ExportConfig, {'precision': 'foo'}, "export.precision must be one of float32, bfloat16. Received: 'foo'"),
        (
            ServingCheckConfig,
            {'server': 'foo'},
            "serving_check.server must be one of auto, off, required. Received: 'foo'",
        ),
        (TrainerConfig, {'batch_size': 0}, 'trainer.batch_size must be at least 1. Received: 0'),
        (
            TrainerConfig,
            {'early_stopping_patience': 0},
            'trainer.early_stopping_patience must be at least 1. Received: 0',
        ),
        (TrainerConfig, {'seed': None}, 'trainer.seed must be a whole number. Received: None'),
        (
            TrainerConfig,
            {'learning_rate': float('inf')},
            'trainer.learning_rate must be a number, over 0. Received: inf',
        ),
        (GateConfig, {'confidence': 1}, 'gate.confidence must be between 0 and 1. Received: 1'),
        (GateConfig, {'acuracy': 1}, 'gate.acuracy is not a setting. Received: 1'),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence_that_names_the_whole_key(section, values, sentence):
    with pytest.raises(UsageError) as refusal:
        section(**values)
    assert str(refusal.value) == sentence
    with pytest.raises(UsageError) as refusal:
        section.from_json(json.dumps({**asdict(section()), **values}))
    assert str(refusal.value) == sentence


@pytest.mark.parametrize('section', TRAVELLING)
def test_a_config_comes_back_from_json_as_it_was(section: type[Settings]):
    config = section()
    assert json.loads(config.to_json()) == json.loads(json.dumps(asdict(config)))
    assert section.from_json(config.to_json()) == config
    assert section.from_json(config.to_json()).to_json() == config.to_json()


def test_a_config_comes_back_from_the_lists_that_tfx_makes_of_tuples():
    config = TrainerConfig(head_units=(8, 4))
    assert TrainerConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_the_backbones_that_the_config_names_are_those_of_the_table():
    assert get_args(get_type_hints(TrainerConfig)['backbone']) == tuple(BACKBONES)
