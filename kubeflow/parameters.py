"""The parameters of a package: what people change between runs without compiling anew.

Kubeflow replaces a component's input parameters whole, and most of our settings travel inside JSON, such as the
Trainer's `custom_config`. So a component gets a further input parameter that is named by the path into that JSON,
`custom_config.trainer.epochs`, and takes its value from the pipeline's parameter `trainer_epochs`. The driver resolves
it as any other, with its type, and puts it into the ExecutorInput (and into the cache key). The container's command
calls `apply_parameters` before TFX sees it. No text is replaced within text.
"""

import functools
import json
import operator
from collections.abc import Mapping
from typing import Any

from components.errors import UsageError
from components.model_gate.config import GateConfig
from pipeline.config import PipelineConfig
from trainer.config import TrainerConfig

_TYPES = {int: 'NUMBER_INTEGER', float: 'NUMBER_DOUBLE', str: 'STRING'}

_TARGETS: dict[str, tuple[tuple[str, str], ...]] = {
    'data': (('ImportExampleGen', 'input_base'), ('Pusher', 'custom_config.data')),
    'serving': (
        ('DataCheck', 'serving'),
        ('BaselineFinder', 'serving'),
        ('Pusher', 'push_destination.filesystem.base_directory'),
    ),
    'trainer_image_size': (('Transform', 'custom_config.image_size'), ('Trainer', 'custom_config.trainer.image_size')),
    'trainer_epochs': (('Trainer', 'custom_config.trainer.epochs'),),
    'trainer_batch_size': (('Trainer', 'custom_config.trainer.batch_size'),),
    'trainer_learning_rate': (('Trainer', 'custom_config.trainer.learning_rate'),),
    'trainer_seed': (('Trainer', 'custom_config.trainer.seed'),),
    'gate_accuracy': (('Evaluator', 'gate.accuracy'),),
    'gate_recall': (('Evaluator', 'gate.recall'),),
    'gate_baseline': (('Evaluator', 'gate.baseline'),),
}
"""By parameter: the steps that read it, and where in their execution properties it goes."""

_CONFIGS = {'trainer': TrainerConfig, 'gate': GateConfig}


def _list_defaults(config: PipelineConfig) -> dict[str, int | float | str]:
    return {
        'data': config.data,
        'serving': config.get_serving(),
        'trainer_image_size': config.trainer.get_image_size(),
        'trainer_epochs': config.trainer.epochs,
        'trainer_batch_size': config.trainer.batch_size,
        'trainer_learning_rate': config.trainer.learning_rate,
        'trainer_seed': config.trainer.seed,
        'gate_accuracy': config.gate.accuracy,
        'gate_recall': config.gate.recall,
        'gate_baseline': config.gate.baseline,
    }


def add_parameters(spec: dict[str, Any], config: PipelineConfig) -> None:
    """Gives a PipelineSpec its parameters, with the config's values as defaults, and their places in the steps.

    Args:
      spec: the PipelineSpec as JSON, changed in place.
      config: what it was made from.
    """
    definitions = {}
    for name, default in _list_defaults(config).items():
        kind = _TYPES[type(default)]
        definitions[name] = {'parameterType': kind, 'defaultValue': default}
        for node_id, path in _TARGETS[name]:
            task = spec['root']['dag']['tasks'][node_id]
            task['inputs']['parameters'][path] = {'componentInputParameter': name}
            spec['components'][node_id]['inputDefinitions']['parameters'][path] = {'parameterType': kind}
    spec['root']['inputDefinitions'] = {'parameters': definitions}


def check_values(values: Mapping[str, Any]) -> None:
    """Refuses values that a step would refuse, some only after hours of training.

    The document cannot: servers before 2.16 do not know `literals`, and refuse a package that has them.

    Args:
      values: of a pipeline's parameters; those that `add_parameters` does not know are left alone.

    Raises:
      UsageError: says what the parameter takes.
    """
    for name in values.keys() & _TARGETS.keys():
        section, _, field = name.partition('_')
        if section in _CONFIGS:
            try:
                _CONFIGS[section](**{field: values[name]})
            except UsageError as error:
                raise UsageError(f'The parameter {name}: {error}') from error


def _convert(path: str, value: Any, kind: str) -> Any:
    if kind != 'NUMBER_INTEGER':
        return value
    if value != int(value):
        raise UsageError(f'The parameter {path} takes a whole number. Received: {value}')
    return int(value)  # JSON has one kind of number


def apply_parameters(values: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A step's execution properties, with what paths name put into their JSON.

    Args:
      values: the ExecutorInput's `inputs.parameterValues`, as JSON.
      definitions: the component's `inputDefinitions.parameters`, which `--json_serialized_inputs_spec_args` holds.

    Returns:
      The values without the paths.

    Raises:
      UsageError: a whole number was expected.
    """
    properties = {name: value for name, value in values.items() if '.' not in name}
    for path in values.keys() - properties.keys():
        name, *parents, last = path.split('.')
        document = json.loads(properties[name])
        place = functools.reduce(operator.getitem, parents, document)
        place[last] = _convert(path, values[path], definitions[path]['parameterType'])
        properties[name] = json.dumps(document)
    return properties
