"""The parameters of a package: settings that people change between runs without compiling again.

Kubeflow can set a component's input parameter only as a whole, and most of our settings are inside a JSON parameter,
such as the Trainer's `custom_config`. So a component gets one more input parameter for each of these settings. It is
named by the path into the JSON, such as `custom_config.trainer.epochs`, and takes its value from a parameter of the
pipeline, such as `trainer_epochs`. The driver resolves it like any other input, with its type, and puts it into the
ExecutorInput and into the cache key. `apply_parameters` then writes the value into the JSON, before TFX reads it.
"""

import functools
import json
import operator
from collections.abc import Mapping
from typing import Any

from components.errors import UsageError
from components.model_gate.config import GateConfig
from pipeline.config import PipelineConfig
from pipeline.kubeflow_config import TRAINING_STEPS
from trainer.config import TrainerConfig

_TYPES = {int: 'NUMBER_INTEGER', float: 'NUMBER_DOUBLE', str: 'STRING'}

_KEEPERS = ('Pusher', 'Report')  # steps that write down what the run was made with
_TRAINER_FIELDS = ('epochs', 'batch_size', 'learning_rate', 'seed')
_GATE_FIELDS = ('accuracy', 'recall', 'baseline')


def _name_places(step: str, section: str, field: str) -> tuple[tuple[str, str], ...]:
    """Where a setting stands: in the properties of the step that reads it, and in those of the steps that keep it."""
    own = f'{section}.{field}' if step == 'Evaluator' else f'custom_config.{section}.{field}'
    readers = [(reader, own) for reader in (TRAINING_STEPS if step == 'Trainer' else (step,))]
    return *readers, *((keeper, f'custom_config.settings.{section}.{field}') for keeper in _KEEPERS)


_TARGETS: dict[str, tuple[tuple[str, str], ...]] = {
    'data': (('ImportExampleGen', 'input_base'), *((keeper, 'custom_config.data') for keeper in _KEEPERS)),
    'serving': (
        ('DataCheck', 'serving'),
        ('BaseModelFinder', 'serving'),
        ('BaselineFinder', 'serving'),
        ('Pusher', 'push_destination.filesystem.base_directory'),
    ),
    'trainer_image_size': (
        ('Transform', 'custom_config.image_size'),
        *_name_places('Trainer', 'trainer', 'image_size'),
    ),
    **{f'trainer_{field}': _name_places('Trainer', 'trainer', field) for field in _TRAINER_FIELDS},
    **{f'gate_{field}': _name_places('Evaluator', 'gate', field) for field in _GATE_FIELDS},
}
"""By parameter of the pipeline: the steps that read it, and the path of the setting in their execution properties."""

_CONFIGS = {'trainer': TrainerConfig, 'gate': GateConfig}


def _list_defaults(config: PipelineConfig) -> dict[str, int | float | str]:
    return {
        'data': config.data or '',  # never empty here: Target.check wants a path or a URI
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
    """Adds the parameters to a PipelineSpec, with the config's values as defaults, and passes them to the steps.

    Args:
      spec: the PipelineSpec as JSON, changed in place.
      config: that the PipelineSpec was made from.
    """
    definitions = {}
    for name, default in _list_defaults(config).items():
        kind = _TYPES[type(default)]
        definitions[name] = {'parameterType': kind, 'defaultValue': default}
        tasks = spec['root']['dag']['tasks']
        for node_id, path in (target for target in _TARGETS[name] if target[0] in tasks):
            task = tasks[node_id]
            task['inputs']['parameters'][path] = {'componentInputParameter': name}
            spec['components'][node_id]['inputDefinitions']['parameters'][path] = {'parameterType': kind}
    spec['root']['inputDefinitions'] = {'parameters': definitions}


def check_values(values: Mapping[str, Any]) -> None:
    """Checks values before a run, which its steps would refuse later, some only after hours of training.

    The package cannot say which values a parameter takes: servers before 2.16 do not know the field for it, `literals`,
    and refuse a package that has it.

    Args:
      values: of the pipeline's parameters by name; parameters that `add_parameters` does not add are not checked.

    Raises:
      UsageError: a value is not one that the parameter takes.
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
    return int(value)  # the ExecutorInput has whole numbers as floats, since protobuf's Value has no integers


def apply_parameters(values: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Writes the parameters that are named by a path into the JSON of a step's execution properties.

    Args:
      values: the ExecutorInput's `inputs.parameterValues`, as JSON.
      definitions: the component's `inputDefinitions.parameters`, from `--json_serialized_inputs_spec_args`.

    Returns:
      The execution properties: the values without those that are named by a path.

    Raises:
      UsageError: a value is not a whole number where one is expected.
    """
    properties = {name: value for name, value in values.items() if '.' not in name}
    for path in values.keys() - properties.keys():
        name, *parents, last = path.split('.')
        document = json.loads(properties[name])
        place = functools.reduce(operator.getitem, parents, document)
        place[last] = _convert(path, values[path], definitions[path]['parameterType'])
        properties[name] = json.dumps(document)
    return properties
