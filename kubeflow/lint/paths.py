"""Paths in a package that its steps cannot reach: those of the machine that compiled it.

Called by kubeflow/lint/linter.py. A step sees its image, its volumes and the launcher's mirrors of the object store
(backend/src/v2/component/launcher_v2.go LocalPathForURI in kubeflow/pipelines). Of these only a volume outlives the pod
and holds what was there before, so a parameter names that. A value is a path, or JSON with paths.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format

from kubeflow.lint.fields import Problem
from kubeflow.lint.graph import ParsedPackage
from kubeflow.lint.platform import list_mounts

# kubeflow/Dockerfile gives the images' user /home/pipeline.
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
                what = f'Command or environment names a path of this machine: {_shorten(word[found.start() :])}.'
                yield Problem('error', f'deploymentSpec.executors.{label}', what, _MEND)


def _check_dag(
    where: str, dag: Any, given: dict, package: ParsedPackage, parents: tuple[str, ...]
) -> Iterator[Problem]:
    """Follows the values from a DAG's parameters into its tasks, and into the DAGs among them."""
    for name, task in sorted(dag.dag.tasks.items()):
        reference = task.component_ref.name
        component = package.spec.components.get(reference)
        if component is None or reference in parents:
            continue
        values = {key: _find_value(value, given) for key, value in sorted(task.inputs.parameters.items())}
        if component.HasField('dag'):
            yield from _check_dag(f'components.{reference}', component, values, package, (*parents, reference))
            continue
        mounts = list_mounts(package.platform.get(component.executor_label, {}))
        for key, value in values.items():
            yield from _check_value(f'{where}.dag.tasks.{name}.inputs.parameters.{key}', key, value, mounts)


def _find_value(value: Any, given: dict) -> Any:
    """What a task's parameter is when a run gives nothing; None if another task makes it."""
    if value.WhichOneof('kind') == 'runtime_value':
        return json_format.MessageToDict(value.runtime_value.constant)
    return given.get(value.component_input_parameter)


def _check_value(where: str, key: str, value: Any, mounts: list[str]) -> Iterator[Problem]:
    for name, text in _list_strings(key, value):
        if text.startswith('/') and any(text == mount or text.startswith(f'{mount}/') for mount in mounts if mount):
            continue
        if text.startswith('file://') or re.match(r'/[^/\s]', text):
            what = f'No volume of the step holds {_shorten(text)}: nothing is there, and what is written there is lost.'
            yield Problem('error', where, what, _MEND)
        elif re.match(r'(\.\.?|~)(/|$)', text) or ('/' in text and '://' not in text and _PLACES.search(name)):
            what = f"{_shorten(text)} is relative, and the container's working folder holds none of your files."
            yield Problem('error', where, what, _MEND)


def _list_strings(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The strings in a value, each with the name it goes by; TFX writes nested settings as JSON within a string."""
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
