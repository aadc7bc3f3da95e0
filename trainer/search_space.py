"""What the Tuner searches: hyper-parameters that are named as the fields of TrainerConfig that they take the place of.

The backbone, the image size and the layers that are trained stay as they are configured, so that all trials share one
frozen pass.
"""

import dataclasses
import json
from typing import Any

import keras_tuner

from trainer.config import TrainerConfig

_HEADS: tuple[tuple[int, ...], ...] = ((), (128,), (256,), (512,), (256, 128))


def make_search_space() -> keras_tuner.HyperParameters:
    """Makes the space: optimizer, learning rate, batch size, head and label smoothing.

    The dropout belongs to the Dense layers of the head and is searched only where there are some.
    """
    space = keras_tuner.HyperParameters()
    space.Choice('optimizer', ['rmsprop', 'sgd', 'adam', 'adamw'])
    space.Float('learning_rate', 1e-4, 3e-2, sampling='log')
    space.Choice('batch_size', [32, 64, 128, 256])
    heads = [_encode(units) for units in _HEADS]
    space.Choice('head_units', heads)
    with space.conditional_scope('head_units', [head for head in heads if head != _encode(())]):
        space.Float('dropout', 0.0, 0.5, step=0.1)
    space.Boolean('head_batchnorm')
    space.Choice('label_smoothing', [0.0, 0.1])
    return space


def list_configured(config: TrainerConfig) -> dict[str, Any]:
    """Returns the values that a configuration has for the hyper-parameters, in the form that KerasTuner wants.

    They may lie outside the space.
    """
    names = [parameter.name for parameter in make_search_space().space]
    values = {name: getattr(config, name) for name in names if name != 'dropout' or config.head_units}
    return {name: _encode(value) if isinstance(value, tuple) else value for name, value in values.items()}


def apply_hyperparameters(config: TrainerConfig, settings: dict[str, Any]) -> TrainerConfig:
    """Returns a copy of a configuration with other values for some fields.

    Args:
      config: The configuration.
      settings: Values by the name of the field, from `components.hyperparameters`.
    """
    return dataclasses.replace(config, **settings)


def _encode(units: tuple[int, ...]) -> str:
    return json.dumps(list(units))
