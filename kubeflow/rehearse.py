"""The rehearsal: runs a compiled package's own container commands on this machine, as Kubeflow would on a cluster.

It walks the graph; `kubeflow.driver` resolves what a task is given, `kubeflow.launcher` runs its container.
"""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.errors import UsageError
from kubeflow.driver import (
    Context,
    Outputs,
    fill_defaults,
    order_tasks,
    provision_outputs,
    resolve_artifact,
    resolve_parameter,
)
from kubeflow.launcher import Launcher, StepError, StepResult
from kubeflow.package import Document, Package, parse_parameters, read_package

_DEFAULT_ROOT = 'minio://mlpipeline/v2/artifacts'  # where the server puts artifacts when a package does not say


class Rehearsal:
    """One run of a package.

    Args:
      package: what `compile` wrote.
      folder: stands for the containers' root, and keeps the logs.
      mounts: the folder of this machine for a mount path in the containers.
      run_id: of the run, in URIs.
      on_result: called after every step.
    """

    def __init__(
        self,
        package: Package,
        folder: Path,
        mounts: dict[str, Path],
        run_id: str,
        on_result: Callable[[StepResult], None],
    ):
        self._package = package
        self._root = str(folder.absolute() / 'root')
        folders = {path: str(mounts.get(path) or self._root + path) for path in package.list_mount_paths()}
        self._launcher = Launcher(self._root, folder.absolute() / 'logs', folders, on_result)
        pipeline_root = package.pipeline_root or _DEFAULT_ROOT
        self._run_id = run_id
        self._run_root = f'{pipeline_root.rstrip("/")}/{package.name}/{run_id}'
        self._launched = 0
        unknown = sorted(set(mounts) - set(folders))
        if unknown:
            known = ', '.join(folders) or 'nothing'
            raise UsageError(f'The package mounts nothing at {unknown[0]}; it mounts: {known}.')

    def run(self, parameters: dict[str, Any]) -> Context:
        """Runs all steps in the order of their dependencies; where one failed, only what has to run in any case.

        Args:
          parameters: from `parse_parameters`; those left out have their defaults.

        Returns:
          What each of the root's tasks gave.

        Raises:
          StepError: a step failed; says what the first one said.
        """
        root = self._package.spec['root']
        return self._run_dag(root['dag'], fill_defaults(parameters, root.get('inputDefinitions', {})), {})

    def _run_dag(self, dag: Document, parameters: dict[str, Any], artifacts: dict[str, Document]) -> Context:
        done: Context = {}
        failure = None
        for name, sources in order_tasks(dag['tasks']).items():
            task = dag['tasks'][name]
            policy = task.get('triggerPolicy', {})
            if policy.get('condition'):
                raise UsageError(f'{name} has a condition, which the rehearsal cannot decide.')
            runs_always = policy.get('strategy') == 'ALL_UPSTREAM_TASKS_COMPLETED'
            if not runs_always and any(done[source].state != 'COMPLETE' for source in sources):
                done[name] = Outputs({}, {}, 'NOT_TRIGGERED')
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
        inputs, component_name = task.get('inputs', {}), task['componentRef']['name']
        component = self._package.spec['components'][component_name]
        values = {
            key: resolve_parameter(spec, parameters, done, self._run_id)
            for key, spec in inputs.get('parameters', {}).items()
        }
        values = fill_defaults(values, component.get('inputDefinitions', {}))
        given = {key: resolve_artifact(spec, artifacts, done) for key, spec in inputs.get('artifacts', {}).items()}
        if 'dag' in component:
            self._run_dag(component['dag'], values, given)
            return Outputs({}, {})
        container = self._package.get_container(component_name)
        if container is None:
            raise UsageError(f'{name} runs no container, and the rehearsal runs nothing else.')
        definitions = component.get('outputDefinitions', {})
        executor_input = {
            'inputs': {
                'parameterValues': values,
                'artifacts': {key: {'artifacts': [artifact]} for key, artifact in given.items()},
            },
            'outputs': provision_outputs(definitions, f'{self._run_root}/{name}/{self._launched}', self._root),
        }
        self._launched += 1
        return self._launcher.launch(name, container, executor_input)


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
    """The command: prints a line a step, with seconds and peak memory.

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

    def print_step(result: StepResult) -> None:
        print(f'{result.task:<17} {result.seconds:6.1f} s  {result.peak_mb / 1000:5.2f} GB', flush=True)

    run_id = uuid.uuid4().hex[:8]
    print(f'Rehearsal {run_id} of {package.name} in {folder.absolute()}', flush=True)
    done = Rehearsal(package, folder, parse_mounts(mounts), run_id, print_step).run(values)
    print(f"{len(done)} steps ended well; set each step's memory from the figures above")
    return 0
