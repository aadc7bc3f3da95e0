"""Rules for paths in a package that its steps cannot reach, such as folders of the machine that compiled it.

Called by kubeflow/lint/linter.py. A step sees its image, its volumes and the launcher's mirrors of the object store
(backend/src/v2/component/launcher_v2.go LocalPathForURI in kubeflow/pipelines). Only a volume holds files from before
the step and keeps files after it, so a path in a parameter must lie on a volume of the step. A parameter's value is a
path, or JSON that contains paths.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format

from kubeflow.lint.graph import ParsedPackage
from kubeflow.lint.platform import list_mounts
from kubeflow.lint.problem import Problem

# /home/pipeline is left out: it is the home folder in the images of kubeflow/Dockerfile.
_HOMES = re.compile(r'(^|[=:,\s"\'])(/home/(?!pipeline(?![\w.-]))|/Users/|/root/|file://|~/)')
_PLACES = re.compile(r'(uri|path|base|directory|dir|root|file|folder|destination|data|serving)$', re.IGNORECASE)
_MEND = 'Give s3:// or gs://, or a folder of a volume that the step mounts.'


def check_paths(package: ParsedPackage) -> Iterator[Problem]:
    """Checks the parameters of every step, and the command and environment of every container."""
    root = package.spec.root
    defaults = {
        name: json_format.MessageToDict(definition.default_value)
        for name, definition in root.input_definitions.parameters.items()
        if definition.HasField('default_value')
    }
    yield from _check_dag('root', root, defaults, package, ())
    for label, executor in sorted(package.executors.items()):
        container = executor.container
        words = [*container.command, *container.args, *(f'{pair.name}={pair.value}' for pair in container.env)]
        for word in words:
            if found := _HOMES.search(word):
                path = _shorten(word[found.start(2) :])
                what = f'The command or the environment has a path that only this machine has: {path}.'
                yield Problem('error', f'deploymentSpec.executors.{label}', what, _MEND)


def _check_dag(
    where: str, dag: Any, given: dict[str, Any], package: ParsedPackage, parents: tuple[str, ...]
) -> Iterator[Problem]:
    """Follows the values of a DAG's parameters into its tasks, and into the DAGs among these tasks.

    Args:
      where: the path of the DAG's component in the document.
      dag: pb.ComponentSpec with the DAG.
      given: the DAG's parameters by name.
      package: the whole package.
      parents: names of the components around this one, so that a component that contains itself ends the search.
    """
    for name, task in sorted(dag.dag.tasks.items()):
        reference = task.component_ref.name
        component = package.spec.components.get(reference)
        if component is None or reference in parents:
            continue
        values = {key: _find_value(value, given) for key, value in sorted(task.inputs.parameters.items())}
        if component.HasField('dag'):
            yield from _check_dag(f'components.{reference}', component, values, package, (*parents, reference))
            continue
        entry = package.platform.get(component.executor_label)
        mounts = [] if entry is None else list_mounts(entry)
        for key, value in values.items():
            yield from _check_value(f'{where}.dag.tasks.{name}.inputs.parameters.{key}', key, value, mounts)


def _find_value(value: Any, given: dict[str, Any]) -> Any:
    """Returns the value that a task's parameter has by default; None if a task computes it."""
    if value.WhichOneof('kind') == 'runtime_value':
        return json_format.MessageToDict(value.runtime_value.constant)
    return given.get(value.component_input_parameter)


def _check_value(where: str, key: str, value: Any, mounts: list[str]) -> Iterator[Problem]:
    for name, text in _list_strings(key, value):
        if text.startswith('/') and any(text == mount or text.startswith(f'{mount}/') for mount in mounts if mount):
            continue
        if text.startswith('file://') or re.match(r'/[^/\s]', text):
            what = (
                f'The step has no volume at {_shorten(text)}: it finds no files there, and files that it writes there '
                'are lost.'
            )
            yield Problem('error', where, what, _MEND)
        elif re.match(r'(\.\.?|~)(/|$)', text) or ('/' in text and '://' not in text and _PLACES.search(name)):
            what = f"{_shorten(text)} is relative, and the container's working folder has none of your files."
            yield Problem('error', where, what, _MEND)


def _list_strings(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yields the strings in a value, each with the name of its setting; TFX puts nested settings into JSON strings."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _list_strings(key, item)
    elif isinstance(value, list):
        for item in value:
            yield from _list_strings(name, item)
    elif isinstance(value, str):
        try:
            parsed = json.loads(value) if value[:1] in ('{', '[', '"') else None
        except ValueError:
            parsed = None
        if parsed is not None:
            yield from _list_strings(name, parsed)
        else:
            flag, _, argument = value.partition('=')  # --temp_location=/home/me
            yield name, argument if flag.startswith('--') else value


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f'{text[:80]}...'
