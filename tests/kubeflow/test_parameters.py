"""The parameters of a package: each does what the setting does, and refuses what the setting refuses."""

import json

import pytest

from components.errors import UsageError
from kubeflow.compile import create_package
from kubeflow.package import Package, parse_parameters
from kubeflow.parameters import apply_parameters
from tests.kubeflow.compiling import COMPILED, TARGET, get_container, make_config, parse


@pytest.fixture(scope='module')
def spec() -> dict:
    return parse(create_package(make_config(), TARGET))[0]


def resolve(spec: dict, name: str, **given) -> dict:
    """Returns a step's execution properties, as Kubeflow's driver and the container's command make them."""
    defaults = spec['root']['inputDefinitions']['parameters']
    values = {
        key: source['runtimeValue']['constant']
        if 'runtimeValue' in source
        else given.get(source['componentInputParameter'], defaults[source['componentInputParameter']]['defaultValue'])
        for key, source in spec['root']['dag']['tasks'][name]['inputs'].get('parameters', {}).items()
    }
    arguments = get_container(spec, name)['args']
    inputs = json.loads(arguments[arguments.index('--json_serialized_inputs_spec_args') + 1])
    return apply_parameters(values, inputs.get('parameters', {}))


@pytest.mark.parametrize(
    ('given', 'assignments'),
    [
        ({}, []),
        ({'data': '/mnt/d', 'serving': '/mnt/s'}, ['data=/mnt/d', 'serving=/mnt/s']),
        (
            {'trainer_epochs': 7.0, 'trainer_image_size': 64, 'trainer_batch_size': 8, 'trainer_learning_rate': 0.5},
            [
                'trainer.epochs=7',
                'trainer.image_size=64',
                'trainer.batch_size=8',
                'trainer.learning_rate=0.5',
            ],
        ),
        (
            {'gate_accuracy': 0.1, 'gate_recall': 0.2, 'gate_baseline': 'better', 'trainer_seed': 3},
            ['gate.accuracy=0.1', 'gate.recall=0.2', 'gate.baseline=better', 'trainer.seed=3'],
        ),
    ],
)
def test_a_parameter_does_what_the_setting_does(spec, given, assignments):
    other, _ = parse(create_package(make_config('trainer.image_size=224', *assignments), TARGET))
    for name in COMPILED:
        properties = resolve(spec, name, **given)
        constants = {
            key: source['runtimeValue']['constant']
            for key, source in other['root']['dag']['tasks'][name]['inputs'].get('parameters', {}).items()
            if 'runtimeValue' in source
        }
        for key, constant in constants.items():
            assert load(properties[key]) == load(constant), f'{name}.{key}'
    assert resolve(spec, 'ImportExampleGen', **given)['input_base'] == given.get('data', 'gs://bucket/data')
    assert resolve(spec, 'BaselineFinder', **given)['serving'] == given.get('serving', '/mnt/models')


def load(value):
    """Parses JSON, so that neither blanks nor the order of keys count; returns other values as they are."""
    return json.loads(value) if isinstance(value, str) and value.startswith('{') else value


def test_a_fraction_is_refused_for_a_whole_number(spec):
    with pytest.raises(UsageError, match=r'trainer\.epochs takes a whole number\. Received: 1\.5'):
        resolve(spec, 'Trainer', trainer_epochs=1.5)


@pytest.mark.parametrize(
    ('assignment', 'sentence'),
    [
        ('gate_baseline=foo', r"gate\.baseline must be one of not_worse, better, ignore\. Received: 'foo'"),
        ('gate_accuracy=1.5', r'gate\.accuracy must be 0 to 1'),
        ('trainer_epochs=0', r'trainer\.epochs must be at least 1'),
    ],
)
def test_a_value_that_a_step_would_refuse_is_refused_before_the_run(spec, assignment, sentence):
    with pytest.raises(UsageError, match=f'^The parameter {assignment.partition("=")[0]}: .*{sentence}'):
        parse_parameters(Package(spec, {}), [assignment])
