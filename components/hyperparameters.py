"""What the Tuner writes for others: the hyper-parameters that it chose, and a table of its trials."""

import json
from pathlib import Path
from typing import Any

TRIALS_FILE = 'trials.json'  # in the artifact `tuner_results`: a `trainer.tuner.Search`
BEST_FILE = 'best_hyperparameters.txt'  # TFX's name, in the artifact `best_hyperparameters`


def decode_hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """Turns hyper-parameters into settings of the Trainer.

    KerasTuner chooses among numbers and texts, so a list such as that of `trainer.head_units` is a JSON text there.

    Args:
      config: of a `keras_tuner.HyperParameters`, as its `get_config` returns it.

    Returns:
      Values by the name of the setting, such as {'learning_rate': 0.001, 'head_units': [128]}.
    """
    return {
        name: json.loads(value) if isinstance(value, str) and value.startswith('[') else value
        for name, value in config['values'].items()
    }


def read_hyperparameters(folder: str) -> dict[str, Any]:
    """Reads the settings that the Tuner chose from its artifact `best_hyperparameters`."""
    return decode_hyperparameters(json.loads(Path(folder, BEST_FILE).read_text()))


def describe_hyperparameters(settings: dict[str, Any]) -> str:
    """Says settings in a line: 'learning_rate=0.00123, optimizer=adam'."""
    return ', '.join(
        f'{name}={value:.3g}' if isinstance(value, float) else f'{name}={value}' for name, value in settings.items()
    )
