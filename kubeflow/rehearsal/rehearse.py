"""The rehearsal: runs a compiled package's own container commands on this machine, as Kubeflow would on a cluster.

This module walks the graph of tasks. `kubeflow.rehearsal.driver` resolves the inputs of a task, and
`kubeflow.rehearsal.launcher` runs its container. It does not evaluate conditions or iterators, which `compile` never
writes, and it runs only containers: it refuses a package with other tasks before any step runs.
"""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import UsageError, to_one_line
from kubeflow.package import Document, Package, parse_parameters, read_package
from kubeflow.rehearsal.cache import ServerCache, compute_fingerprint
from kubeflow.rehearsal.driver import (
    NOT_TRIGGERED,
    Context,
    Outputs,
    Run,
    collect_outputs,
    fill_defaults,
    find_obstacle,
    order_tasks,
    provision_outputs,
    resolve_artifact,
    resolve_parameter,
)
from kubeflow.rehearsal.launcher import Launcher, StepError, StepResult

_DEFAULT_ROOT = 'minio://mlpipeline/v2/artifacts'  # where the server puts artifacts if a package has no pipeline root


class SkippedTask(NamedTuple):
    """A task that did not run, because a task that it depends on failed or did not run either."""

    task: str
    reason: str

    def __str__(self) -> str:
        return f'{self.task:<17} not triggered: {self.reason}'


class ReusedTask(NamedTuple):
    """A task that did not run, because the server's cache has its outputs from an earlier rehearsal."""

    task: str

    def __str__(self) -> str:
        return f'{self.task:<17} reused from the cache'


class FailedAttempt(NamedTuple):
    """An attempt at a task that failed, after which the task is started again."""

    task: str
    attempt: int
    attempts: int
    reason: str

    def __str__(self) -> str:
        return f'{self.task:<17} attempt {self.attempt} of {self.attempts} failed: {self.reason}'


Result = StepResult | SkippedTask | ReusedTask | FailedAttempt


class Rehearsal:
    """One run of a package.

    Args:
      package: what `compile` wrote.
      folder: where files of the run go: artifacts, logs, and all that a container writes below its root folder.
      mounts: the folder of this machine for each mount path in the containers.
      run_id: of the run, as in the URIs of artifacts.
      on_result: called after every step that succeeded, for every task that is skipped or reused, and after every
        failed attempt that is not the last.

    Raises:
      UsageError: the package has a task that cannot be rehearsed, or does not mount what `mounts` names.
    """

    def __init__(
        self,
        package: Package,
        folder: Path,
        mounts: dict[str, Path],
        run_id: str,
        on_result: Callable[[Result], None],
    ):
        _check_tasks(package)
        self._package = package
        self._root = str(folder.absolute() / 'root')
        folders = {path: str(mounts.get(path) or self._root + path) for path in package.list_mount_paths()}
        pipeline_root = package.pipeline_root or _DEFAULT_ROOT
        self._run_root = f'{pipeline_root.rstrip("/")}/{package.name}/{run_id}'
        self._run = Run(run_id, package.name, f'{package.name}-{uuid.uuid4().hex[:5]}')
        self._cache = ServerCache(folder.absolute() / 'server.json')
        logs = folder.absolute() / 'logs'
        self._launcher = Launcher(self._root, logs, folders, self._run, self._cache.count_artifact, on_result)
        self._on_result = on_result
        unknown = sorted(set(mounts) - set(folders))
        if unknown:
            known = ', '.join(folders) or 'nothing'
            raise UsageError(f'--mount: the package does not mount a volume at {unknown[0]}; it mounts: {known}.')

    def run(self, parameters: dict[str, Any]) -> None:
        """Runs all steps in the order of their dependencies.

        After a failure, the tasks that depend on the failed one are skipped, except exit tasks.

        Args:
          parameters: from `parse_parameters`; parameters that are left out have their defaults.

        Raises:
          StepError: a step failed; the message is that of the first step that failed.
          UsageError: tasks depend on each other in a circle, or an input cannot be resolved.
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
        specs, component_name = task.get('inputs', {}), task['componentRef']['name']
        component = self._package.spec['components'][component_name]
        values = {
            key: resolve_parameter(spec, parameters, done, self._run)
            for key, spec in specs.get('parameters', {}).items()
        }
        filled = fill_defaults(values, component.get('inputDefinitions', {}))
        given = {key: resolve_artifact(spec, artifacts, done) for key, spec in specs.get('artifacts', {}).items()}
        lists = {key: {'artifacts': [artifact]} for key, artifact in given.items()}
        if 'dag' in component:
            return collect_outputs(component['dag'], self._run_dag(component['dag'], filled, given))
        return self._run_step(name, task, {'parameterValues': filled, 'artifacts': lists})

    def _run_step(self, name: str, task: Document, inputs: Document) -> Outputs:
        """Runs a step, or takes its outputs from the cache. A failed step is started again as its task says."""
        component_name = task['componentRef']['name']
        container = self._package.get_container(component_name) or {}
        definitions = self._package.spec['components'][component_name].get('outputDefinitions', {})
        outputs = provision_outputs(definitions, f'{self._run_root}/{name}', self._root)
        given, fingerprint = {'inputs': inputs, 'outputs': outputs}, None
        if task.get('cachingOptions', {}).get('enableCache'):
            claims = self._package.list_claims(component_name)
            fingerprint = compute_fingerprint(container, given, definitions, claims)
            if found := self._cache.find(fingerprint):
                self._on_result(ReusedTask(name))
                return found
        names = self._package.list_secret_variables(component_name)
        secrets = [{'name': each, 'value': os.environ[each]} for each in names if each in os.environ]
        container = {**container, 'env': [*container.get('env', []), *secrets]}
        attempts = 1 + int(task.get('retryPolicy', {}).get('maxRetryCount', 0))
        for attempt in range(attempts):
            try:
                done = self._launcher.launch(
                    name, container, given, definitions, attempt, is_retried='retryPolicy' in task
                )
                break
            except StepError as error:
                if attempt + 1 == attempts:
                    raise
                self._on_result(FailedAttempt(name, attempt + 1, attempts, str(error)))
        if fingerprint:
            self._cache.keep(fingerprint, done)
        return done


def _check_tasks(package: Package) -> None:
    """Refuses a package with tasks that the rehearsal cannot run, wherever they are in the graph."""
    reasons = []
    for dag in package.list_dags():
        for name, task in dag['tasks'].items():
            component = task['componentRef']['name']
            condition = task.get('triggerPolicy', {}).get('condition')
            if condition:
                reasons.append(f'{name} has the condition {condition}')
            reasons += [f'{name} has a {key}' for key in ('parameterIterator', 'artifactIterator') if key in task]
            if 'dag' not in package.spec['components'][component] and package.get_container(component) is None:
                reasons.append(f'{name} does not run a container')
    if reasons:
        lines = ''.join(f'\n  {reason}' for reason in reasons)
        raise UsageError(
            'The package is not rehearsed: the rehearsal runs only containers, and evaluates neither conditions nor '
            f'iterators. Compile the package without these tasks, or run it on a server:{lines}'
        )


def parse_mounts(assignments: list[str]) -> dict[str, Path]:
    """Parses PATH=DIR texts.

    Returns:
      The absolute folder of this machine for each mount path.

    Raises:
      UsageError: a text has no equals sign.
    """
    for text in assignments:
        if '=' not in text:
            raise UsageError(f'--mount takes PATH=DIR. Received: {text}')
    return {place: Path(folder).absolute() for place, folder in (text.split('=', 1) for text in assignments)}


def rehearse_package(path: Path, folder: Path, mounts: list[str], parameters: list[str]) -> int:
    """Runs the command `rehearse`: prints a line for each step, with its seconds and its peak memory.

    Args:
      path: of the package.
      folder: see Rehearsal; files of earlier rehearsals in it stay.
      mounts: PATH=DIR texts.
      parameters: NAME=VALUE texts.

    Returns:
      The exit code 0.

    Raises:
      UsageError: the package, a parameter, a mount or the folder is wrong, or the package cannot be rehearsed.
      StepError: a step failed.
    """
    package = read_package(path)
    values = parse_parameters(package, parameters)
    results: list[Result] = []

    def print_result(result: Result) -> None:
        print(result, flush=True)
        results.append(result)

    run_id = str(uuid.uuid4())
    rehearsal = Rehearsal(package, folder, parse_mounts(mounts), run_id, print_result)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f'--root takes a folder that exists or can be made: {to_one_line(error)}.') from error
    print(f'Rehearsal {run_id} of {package.name} in {folder.absolute()}', flush=True)
    rehearsal.run(values)
    succeeded = [result for result in results if isinstance(result, StepResult | ReusedTask)]
    print(f"{len(succeeded)} steps succeeded; set each step's memory from the figures above")
    return 0
