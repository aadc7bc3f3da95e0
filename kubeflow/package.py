"""A compiled package, read: the PipelineSpec, the kubernetes platform document, and values for its parameters."""

import difflib
import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from components.errors import UsageError
from kubeflow.parameters import check_values

Document = dict[str, Any]


class Package(NamedTuple):
    """The two documents of a package.

    spec: the PipelineSpec.
    executors: the platform's configuration by executor label; empty where there is no second document.
    """

    spec: Document
    executors: dict[str, Document]

    @property
    def name(self) -> str:
        """Of the pipeline."""
        return self.spec['pipelineInfo']['name']

    @property
    def parameters(self) -> dict[str, Document]:
        """Of the pipeline, each with parameterType, and defaultValue where there is one."""
        return self.spec['root'].get('inputDefinitions', {}).get('parameters', {})

    @property
    def pipeline_root(self) -> str | None:
        """Where its artifacts go; None for the server's own place."""
        return self.spec.get('defaultPipelineRoot')

    def list_steps(self) -> set[str]:
        """The names of the tasks that run a container, those in sub-graphs included."""
        components = self.spec['components']
        dags = [self.spec['root']['dag'], *(part['dag'] for part in components.values() if 'dag' in part)]
        tasks = {name: task['componentRef']['name'] for dag in dags for name, task in dag['tasks'].items()}
        return {name for name, component in tasks.items() if 'dag' not in components[component]}

    def _get_label(self, component: str) -> str | None:
        return self.spec['components'][component].get('executorLabel')

    def get_container(self, component: str) -> Document | None:
        """The container of a component; None for one that runs none."""
        return self.spec['deploymentSpec']['executors'].get(self._get_label(component), {}).get('container')

    def list_secret_variables(self, component: str) -> list[str]:
        """The environment variables of a component's container that Kubernetes fills from secrets."""
        secrets = self.executors.get(self._get_label(component), {}).get('secretAsEnv', [])
        return [entry['envVar'] for secret in secrets for entry in secret['keyToEnv']]

    def list_mount_paths(self) -> list[str]:
        """Where volumes are mounted in containers, the deepest first."""
        mounts = [mount for executor in self.executors.values() for mount in executor.get('pvcMount', [])]
        return sorted({mount['mountPath'] for mount in mounts}, key=len, reverse=True)


def read_package(path: Path) -> Package:
    """Reads what `compile` wrote.

    Raises:
      UsageError: the file cannot be read, or is no package.
    """
    try:
        spec, *others = yaml.safe_load_all(path.read_text())
        platform = others[0]['platforms']['kubernetes']['deploymentSpec']['executors'] if others else {}
        package = Package(spec, platform)
        _ = package.name, package.list_steps(), spec['deploymentSpec']['executors']  # raises for other YAML
        _ = package.parameters.items()
    except OSError as error:
        raise UsageError(f'{path} cannot be read ({error.strerror}).') from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f'{path} is no compiled pipeline; `python -m pipeline compile` makes one.') from error
    return package


def parse_parameters(package: Package, assignments: list[str]) -> dict:
    """KEY=VALUE as the values of the pipeline's parameters, each in its parameter's type.

    Raises:
      UsageError: a parameter that the pipeline does not have, a value that it does not take, or one that is missing.
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
        values[key] = parse_value(key, text, package.parameters[key].get('parameterType', 'STRING'))
    for key, parameter in package.parameters.items():
        if key not in values and 'defaultValue' not in parameter and not parameter.get('isOptional'):
            raise UsageError(f'The pipeline needs --parameter {key}=VALUE.')
    check_values(values)
    return values


def parse_value(key: str, text: str, kind: str) -> object:
    """The value of a parameter that a text stands for.

    Args:
      key: the parameter's name, for errors.
      text: JSON, unless the type is STRING.
      kind: its parameterType.

    Raises:
      UsageError: the text is of another type.
    """
    if kind == 'STRING':
        return text
    types = {'NUMBER_INTEGER': int, 'NUMBER_DOUBLE': (int, float), 'BOOLEAN': bool, 'LIST': list, 'STRUCT': dict}
    if kind not in types:
        raise UsageError(f'The parameter {key} is a {kind}, which cannot be given as text.')
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != 'BOOLEAN'):
        raise UsageError(f'The parameter {key} takes a {kind}, as JSON. Received: {text!r}')
    return value
