"""Package: a compiled package as JSON, and values for its parameters. `submit` and `rehearse` read packages by it."""

import difflib
import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from components.errors import UsageError
from components.staging import write_text
from kubeflow.parameters import check_values

Document = dict[str, Any]


class Package(NamedTuple):
    """The two documents of a package as JSON.

    The rehearsal hands parts of them to containers as they are, and `submit` reads only names and parameters, so
    neither depends on a schema. The linter does: see `kubeflow.lint.graph.ParsedPackage`.

    spec: the PipelineSpec.
    executors: the kubernetes configuration by executor label; empty if there is no second document.
    """

    spec: Document
    executors: dict[str, Document]

    @property
    def name(self) -> str:
        """The name of the pipeline."""
        return str(self.spec['pipelineInfo']['name'])

    @property
    def description(self) -> str:
        """What the pipeline does; '' if the package does not say it. Servers do not read it from the package."""
        return str(self.spec['pipelineInfo'].get('description', ''))

    @property
    def parameters(self) -> dict[str, Document]:
        """The pipeline's parameters by name, each with `parameterType`, and with `defaultValue` if it has one."""
        parameters: dict[str, Document] = self.spec['root'].get('inputDefinitions', {}).get('parameters', {})
        return parameters

    @property
    def pipeline_root(self) -> str | None:
        """The URI below which artifacts are stored; None for the server's default."""
        root: str | None = self.spec.get('defaultPipelineRoot')
        return root

    def list_dags(self) -> list[Document]:
        """Returns all graphs of tasks: the root, then those of components."""
        components = self.spec['components'].values()
        return [self.spec['root']['dag'], *(component['dag'] for component in components if 'dag' in component)]

    def list_steps(self) -> set[str]:
        """Returns the names of the tasks that are not graphs of tasks themselves, in all graphs."""
        components = self.spec['components']
        tasks = {name: task['componentRef']['name'] for dag in self.list_dags() for name, task in dag['tasks'].items()}
        return {name for name, component in tasks.items() if 'dag' not in components[component]}

    def _get_label(self, component: str) -> str:
        return str(self.spec['components'][component].get('executorLabel', ''))

    def get_container(self, component: str) -> Document | None:
        """Returns the container of a component; None if the component does not run one."""
        executor = self.spec['deploymentSpec']['executors'].get(self._get_label(component), {})
        container: Document | None = executor.get('container')
        return container

    def get_platform(self, component: str) -> Document:
        """Returns the kubernetes configuration of a component; empty if it has none."""
        return self.executors.get(self._get_label(component), {})

    def list_secret_variables(self, component: str) -> list[str]:
        """Returns the names of the environment variables that Kubernetes fills from secrets in a component's step."""
        secrets = self.get_platform(component).get('secretAsEnv', [])
        return [entry['envVar'] for secret in secrets for entry in secret['keyToEnv']]

    def list_claims(self, component: str) -> list[str]:
        """Returns the names of the volume claims that a component's step mounts."""
        mounts = self.get_platform(component).get('pvcMount', [])
        return [json.dumps(mount.get('pvcNameParameter', mount.get('constant')), sort_keys=True) for mount in mounts]

    def list_mount_paths(self) -> list[str]:
        """Returns the paths where steps mount volumes, the longest first."""
        mounts = [mount for executor in self.executors.values() for mount in executor.get('pvcMount', [])]
        return sorted({mount['mountPath'] for mount in mounts}, key=len, reverse=True)


def read_package(path: Path) -> Package:
    """Reads a compiled package.

    Args:
      path: of the YAML file.

    Raises:
      UsageError: the file cannot be read, or is not a compiled package.
    """
    try:
        spec, *others = yaml.safe_load_all(path.read_text())
        platform = others[0]['platforms']['kubernetes']['deploymentSpec']['executors'] if others else {}
        package = Package(spec, platform)
        # These raise for YAML that is not a package.
        _ = package.name, package.list_steps(), package.parameters.items(), spec['deploymentSpec']['executors']
    except OSError as error:
        raise UsageError(f'{path} cannot be read ({error.strerror}).') from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f'{path} is not a compiled pipeline; `python -m pipeline compile` makes one.') from error
    return package


def write_file(out: Path, text: str) -> None:
    """Writes a text file, whole or not at all.

    Args:
      out: the file that --out names.
      text: its content.

    Raises:
      UsageError: the file cannot be written.
    """
    try:
        write_text(out, text)
    except OSError as error:
        raise UsageError(f'--out: {out} cannot be written: {error.strerror}.') from error


def parse_parameters(package: Package, assignments: list[str]) -> dict[str, Any]:
    """Parses KEY=VALUE texts into values for the pipeline's parameters, each of its parameter's type.

    Args:
      package: whose parameters they are.
      assignments: the texts.

    Raises:
      UsageError: the pipeline does not have that parameter, the value does not fit it, or a parameter without a default
        has no value.
    """
    values = {}
    for assignment in assignments:
        key, separator, text = assignment.partition('=')
        if not separator:
            raise UsageError(f'--parameter takes KEY=VALUE. Received: {assignment!r}')
        if key not in package.parameters:
            close = difflib.get_close_matches(key, package.parameters, n=1)
            hint = f'; did you mean {close[0]}?' if close else f'; it has: {", ".join(package.parameters) or "none"}.'
            raise UsageError(f'The pipeline has no parameter {key!r}{hint}')
        if '{{' in text:
            raise UsageError(
                f'The parameter {key} takes no {{{{, which Argo, where the steps run, takes for a variable of its own '
                f'and refuses or replaces. Write the text itself. Received: {text}'
            )
        values[key] = parse_value(key, text, package.parameters[key].get('parameterType', 'STRING'))
    for key, parameter in package.parameters.items():
        if key not in values and 'defaultValue' not in parameter and not parameter.get('isOptional'):
            raise UsageError(f'The parameter {key} has no default. Give it: --parameter {key}=VALUE.')
    check_values(values)
    return values


_TYPES: dict[str, tuple[type, ...]] = {
    'NUMBER_INTEGER': (int,),
    'NUMBER_DOUBLE': (int, float),
    'BOOLEAN': (bool,),
    'LIST': (list,),
    'STRUCT': (dict,),
}


def parse_value(key: str, text: str, kind: str) -> object:
    """Parses the value of a parameter.

    Args:
      key: the parameter's name, for errors.
      text: JSON, unless the type is STRING.
      kind: its parameterType.

    Raises:
      UsageError: the text is not of that type, or the type cannot be written as text.
    """
    if kind == 'STRING':
        return text
    if kind not in _TYPES:
        raise UsageError(f'The parameter {key} is a {kind}, which cannot be given as text.')
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != 'BOOLEAN'):
        raise UsageError(f'The parameter {key} takes a {kind}, as JSON. Received: {text!r}')
    return value
