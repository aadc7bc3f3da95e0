"""Rules for {{ in a package: Argo, which runs the steps, takes {{...}} for a variable of its own.

Called by kubeflow/lint/linter.py. Argo's validation (workflow/validate/validate.go) refuses a workflow with a variable
that it does not know, and replaces one that it knows by its value. What the driver fills in begins with {{$, and Argo
leaves it alone; the driver does so in the commands of containers and in the inputs of tasks.
"""

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format

from kubeflow.lint.graph import ParsedPackage
from kubeflow.lint.problem import Problem

_ANY = re.compile(r'\{\{')
_UNFILLED = re.compile(r'\{\{(?!\$)')  # what the driver does not fill in
_MEND = (
    'Write the text without {{. The name and the id of the run are {{$.pipeline_job_name}} and '
    "{{$.pipeline_job_uuid}}, as the constant of a step's input."
)


def check_placeholders(package: ParsedPackage) -> Iterator[Problem]:
    """Checks the values of parameters, the environment of containers, and the kubernetes platform spec."""
    spec = package.spec
    for name, definition in sorted(spec.root.input_definitions.parameters.items()):
        yield from _check(f'root.inputDefinitions.parameters.{name}', json_format.MessageToDict(definition))
    components = {'root': spec.root, **{f'components.{name}': item for name, item in sorted(spec.components.items())}}
    for where, component in components.items():
        for name, task in sorted(component.dag.tasks.items()):
            for key, value in sorted(task.inputs.parameters.items()):
                path = f'{where}.dag.tasks.{name}.inputs.parameters.{key}'
                yield from _check(path, json_format.MessageToDict(value.runtime_value))
    for label, executor in sorted(package.executors.items()):
        for pair in executor.container.env:
            path = f'deploymentSpec.executors.{label}.container.env.{pair.name}'
            # Nothing fills in {{$...}} in the environment, so there every {{ is a mistake.
            yield from _check(path, pair.value, _ANY)
    for label, entry in sorted(package.platform.items()):
        where = f'platforms.kubernetes.deploymentSpec.executors.{label}'
        yield from _check(where, json_format.MessageToDict(entry))


def _check(where: str, value: Any, variable: re.Pattern[str] = _UNFILLED) -> Iterator[Problem]:
    """Yields a problem for each text in a value that has a variable, which Argo would not leave alone."""
    if isinstance(value, str):
        if variable.search(value):
            what = f'Argo refuses or replaces {{{{...}}}}, which it takes for a variable of its own. Received: {value}'
            yield Problem('error', where, what, _MEND)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _check(where, item, variable)
