"""The rehearsal: runs a compiled package's own container commands on this machine, as Kubeflow would on a cluster.

It walks the graph; `kubeflow.rehearsal.driver` resolves the inputs of a task, and `kubeflow.rehearsal.launcher` runs
its container.
"""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import UsageError, to_one_line
from kubeflow.package import Document, Package, parse_parameters, read_package
from kubeflow.rehearsal.driver import (
    NOT_TRIGGERED,
    Context,
    Outputs,
    collect_outputs,
    fill_defaults,
    find_obstacle,
    order_tasks,
    provision_outputs,
    resolve_artifact,
    resolve_parameter,
)
from kubeflow.rehearsal.launcher import Launcher, StepError, StepResult

_DEFAULT_ROOT = 'minio://mlpipeline/v2/artifacts'  # where the server puts artifacts when a package does not say


class SkippedTask(NamedTuple):
    """A task that was not triggered, a whole DAG or one step."""

    task: str
    reason: str

    def __str__(self) -> str:
        return f'{self.task:<17} not triggered: {self.reason}'


class Rehearsal:
    """One run of a package.

    Args:
      package: what `compile` wrote.
      folder: stands for the containers' root, and keeps the logs.
      mounts: the folder of this machine for a mount path in the containers.
      run_id: of the run, in URIs.
      on_result: called after every step that has run well, and for every task whose turn has come without running.
    """

    def __init__(
        self,
        package: Package,
        folder: Path,
        mounts: dict[str, Path],
        run_id: str,
        on_result: Callable[[StepResult | SkippedTask], None],
    ):
        self._package = package
        self._root = str(folder.absolute() / 'root')
        folders = {path: str(mounts.get(path) or self._root + path) for path in package.list_mount_paths()}
        self._launcher = Launcher(self._root, folder.absolute() / 'logs', folders, on_result)
        pipeline_root = package.pipeline_root or _DEFAULT_ROOT
        self._run_id = run_id
        self._run_root = f'{pipeline_root.rstrip("/")}/{package.name}/{run_id}'
        self._on_result = on_result
        self._launched = 0
        unknown = sorted(set(mounts) - set(folders))
        if unknown:
            known = ', '.join(folders) or 'nothing'
            raise UsageError(f'The package mounts nothing at {unknown[0]}; it mounts: {known}.')

    def run(self, parameters: dict[str, Any]) -> None:
        """Runs all steps in the order of their dependencies; where one failed, only what has to run in any case.

        Args:
          parameters: from `parse_parameters`; those left out have their defaults.

        Raises:
          StepError: a step failed; says what the first one said.
          UsageError: a condition or an input cannot be resolved.
        """
        root = self._package.spec['root']
        self._run_dag(root['dag'], fill_defaults(parameters, root.get('inputDefinitions', {})), {})

    def _run_dag(self, dag: Document, parameters: dict[str, Any], artifacts: dict[str, Document]) -> Context:
        done: Context = {}
        failure = None
        for name, sources in order_tasks(dag['tasks']).items():
            task = dag['tasks'][name]
            obstacle = find_obstacle(task, sources, done)
            if obstacle:
                self._on_result(SkippedTask(name, f'it comes after {obstacle}'))
                done[name] = NOT_TRIGGERED
                continue
            try:
                done[name] = self._run_task(name, task, parameters, artifacts, done)
            except StepError as error:
                done[name] = Outputs({}, {}, 'FAILED')
                failure = failure or error
        if failure:
            raise failure
        return done

    def _run_task(
        self, name: str, task: Document, parameters: dict[str, Any], artifacts: dict[str, Document], done: Context
    ) -> Outputs:
        repeated = next((key for key in ('parameterIterator', 'artifactIterator') if key in task), None)
        if repeated:
            raise UsageError(f'{name} has a {repeated}, and the rehearsal repeats no task.')
        condition = task.get('triggerPolicy', {}).get('condition')
        if condition:
            raise UsageError(f'{name} has the condition {condition}, and the rehearsal decides no conditions.')
        specs, component_name = task.get('inputs', {}), task['componentRef']['name']
        component = self._package.spec['components'][component_name]
        values = {
            key: resolve_parameter(spec, parameters, done, self._run_id)
            for key, spec in specs.get('parameters', {}).items()
        }
        filled = fill_defaults(values, component.get('inputDefinitions', {}))
        given = {key: resolve_artifact(spec, artifacts, done) for key, spec in specs.get('artifacts', {}).items()}
        lists = {key: {'artifacts': [artifact]} for key, artifact in given.items()}
        if 'dag' in component:
            return collect_outputs(component['dag'], self._run_dag(component['dag'], filled, given))
        return self._run_step(name, component_name, {'parameterValues': filled, 'artifacts': lists})

    def _run_step(self, name: str, component_name: str, inputs: Document) -> Outputs:
        container = self._package.get_container(component_name)
        if container is None:
            raise UsageError(f'{name} runs no container, and the rehearsal runs nothing else.')
        names = self._package.list_secret_variables(component_name)
        secrets = [{'name': each, 'value': os.environ[each]} for each in names if each in os.environ]
        container = {**container, 'env': [*container.get('env', []), *secrets]}
        definitions = self._package.spec['components'][component_name].get('outputDefinitions', {})
        outputs = provision_outputs(definitions, f'{self._run_root}/{name}/{self._launched}', self._root)
        self._launched += 1
        return self._launcher.launch(name, container, {'inputs': inputs, 'outputs': outputs}, definitions)


def parse_mounts(assignments: list[str]) -> dict[str, Path]:
    """PATH=DIR texts as a dict.

    Raises:
      UsageError: one has no equals sign.
    """
    for text in assignments:
        if '=' not in text:
            raise UsageError(f'--mount takes PATH=DIR. Received: {text}')
    return {place: Path(folder).absolute() for place, folder in (text.split('=', 1) for text in assignments)}


def rehearse_package(path: Path, folder: Path, mounts: list[str], parameters: list[str]) -> int:
    """The command: prints a line a step, with seconds and peak memory, or why it was not triggered.

    Args:
      path: of the package.
      folder: see Rehearsal; what an earlier rehearsal left in it stays.
      mounts: PATH=DIR texts.
      parameters: NAME=VALUE texts.

    Returns:
      0; a step that fails raises.
    """
    package = read_package(path)
    values = parse_parameters(package, parameters)
    results = []

    def print_result(result: StepResult | SkippedTask) -> None:
        print(result, flush=True)
        results.append(result)

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f'--root takes a folder that exists or can be made: {to_one_line(error)}.') from error
    run_id = uuid.uuid4().hex[:8]
    print(f'Rehearsal {run_id} of {package.name} in {folder.absolute()}', flush=True)
    Rehearsal(package, folder, parse_mounts(mounts), run_id, print_result).run(values)
    steps = sum(isinstance(result, StepResult) for result in results)
    print(f"{steps} steps ended well; set each step's memory from the figures above")
    return 0
