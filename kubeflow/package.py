"""What `submit` has to know of a compiled package: its name, its tasks, and its parameters."""

import difflib
import json
from pathlib import Path
from typing import NamedTuple

import yaml

from components.errors import UsageError


class Package(NamedTuple):
    """A compiled package.

    name: of the pipeline.
    parameters: of the pipeline, each with parameterType, and defaultValue where there is one.
    tasks: the names of the steps, those in sub-graphs included.
    """

    name: str
    parameters: dict[str, dict]
    tasks: set[str]


def read_package(path: Path) -> Package:
    """Reads the first document of the file, the PipelineSpec.

    Raises:
      UsageError: there is no such file, or it is no compiled pipeline.
    """
    try:
        spec = next(yaml.safe_load_all(path.read_text()))
        components = spec['components']
        dags = [spec['root']['dag'], *(component['dag'] for component in components.values() if 'dag' in component)]
        tasks = {name: task['componentRef']['name'] for dag in dags for name, task in dag['tasks'].items()}
        return Package(
            spec['pipelineInfo']['name'],
            spec['root'].get('inputDefinitions', {}).get('parameters', {}),
            {name for name, component in tasks.items() if 'dag' not in components[component]},
        )
    except OSError as error:
        raise UsageError(f'{path} cannot be read ({error.strerror}).') from error
    except (yaml.YAMLError, UnicodeDecodeError, StopIteration, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f'{path} is no compiled pipeline; `python -m pipeline compile` makes one.') from error


def parse_parameters(package: Package, assignments: list[str]) -> dict:
    """KEY=VALUE as the values of the pipeline's parameters, each in its parameter's type.

    Raises:
      UsageError: a parameter that the pipeline does not have, a value of another type, or one that is missing.
    """
    values = {}
    for assignment in assignments:
        key, separator, text = assignment.partition('=')
        if not separator:
            raise UsageError(f'--parameter takes KEY=VALUE. Received: {assignment!r}')
        if key not in package.parameters:
            close = difflib.get_close_matches(key, package.parameters, n=1)
            hint = (
                f'; did you mean {close[0]}?' if close else f'; there are: {", ".join(package.parameters) or "none"}.'
            )
            raise UsageError(f'The pipeline has no parameter {key!r}{hint}')
        values[key] = _parse_value(key, text, package.parameters[key].get('parameterType', 'STRING'))
    for key, parameter in package.parameters.items():
        if key not in values and 'defaultValue' not in parameter and not parameter.get('isOptional'):
            raise UsageError(f'The pipeline needs --parameter {key}=VALUE.')
    return values


def _parse_value(key: str, text: str, kind: str) -> object:
    """One value; all types but STRING are written as in JSON."""
    if kind == 'STRING':
        return text
    types = {'NUMBER_INTEGER': int, 'NUMBER_DOUBLE': (int, float), 'BOOLEAN': bool, 'LIST': list, 'STRUCT': dict}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != 'BOOLEAN'):
        raise UsageError(f'The parameter {key} takes a {kind}, as JSON. Received: {text!r}')
    return value
