"""The rehearsal: runs a compiled package's own container commands on this machine, as Kubeflow would on a cluster.

A folder stands for the containers' root: the object store's local copies lie in it under the launcher's own paths.
A step gets the environment that the document gives it and nothing else of this machine's but the path to Python.
"""

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import PipelineError, UsageError
from kubeflow.driver import (
    Context,
    Outputs,
    fill_defaults,
    fill_placeholders,
    order_tasks,
    provision_outputs,
    record_artifact,
    resolve_artifact,
    resolve_parameter,
)
from kubeflow.mirrors import ROOT_VARIABLE, to_path
from kubeflow.package import Document, Package, parse_parameters, read_package

_DEFAULT_ROOT = 'minio://mlpipeline/v2/artifacts'  # where the server puts artifacts when a package does not say
_REPORT_LINES = 20  # of a failed step's output that are searched for its sentence


class StepResult(NamedTuple):
    """A step that has run. peak_mb: the most memory that its process held, children not counted."""

    task: str
    seconds: float
    peak_mb: float


class StepError(PipelineError):
    """A step that failed; the sentence is its own."""


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
        self._logs = folder.absolute() / 'logs'
        self._mounts = {path: str(mounts.get(path) or self._root + path) for path in package.list_mount_paths()}
        pipeline_root = package.pipeline_root or _DEFAULT_ROOT
        self._run_id = run_id
        self._run_root = f'{pipeline_root.rstrip("/")}/{package.name}/{run_id}'
        self._on_result = on_result
        self._recorded = 0
        unknown = sorted(set(mounts) - set(self._mounts))
        if unknown:
            known = ', '.join(self._mounts) or 'nothing'
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
                'parameterValues': {key: self._map_mounts(value) for key, value in values.items()},
                'artifacts': {key: {'artifacts': [artifact]} for key, artifact in given.items()},
            },
            'outputs': provision_outputs(definitions, f'{self._run_root}/{name}/{self._recorded}', self._root),
        }
        self._run_container(name, container, executor_input)
        return self._collect(executor_input['outputs'])

    def _map_mounts(self, value: Any) -> Any:
        """A parameter whose paths under a mount lead to this machine's folder for it."""
        if isinstance(value, str):
            for path, folder in self._mounts.items():
                value = re.sub(rf'(^|"){re.escape(path)}(?=[/"\\]|$)', lambda match, to=folder: match[1] + to, value)
        return value

    def _run_container(self, name: str, container: Document, executor_input: Document) -> None:
        outputs = executor_input['outputs']
        for entry in outputs['artifacts'].values():
            Path(to_path(entry['artifacts'][0]['uri'], self._root)).parent.mkdir(parents=True, exist_ok=True)
        for entry in outputs['parameters'].values():
            Path(entry['outputFile']).parent.mkdir(parents=True, exist_ok=True)
        home = Path(self._root, 'home')
        home.mkdir(parents=True, exist_ok=True)
        arguments = [*container.get('command', []), *container.get('args', [])]
        command = [self._map_mounts(fill_placeholders(part, executor_input, self._root)) for part in arguments]
        environment = {
            'PATH': f'{Path(sys.executable).parent}:{os.defpath}',
            'HOME': str(home),
            ROOT_VARIABLE: self._root,
            **{entry['name']: entry.get('value', '') for entry in container.get('env', [])},
        }
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f'{name}.log'
        begin = time.monotonic()
        with log.open('wb') as file:
            process = subprocess.Popen(command, cwd=home, env=environment, stdout=file, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise StepError(f'{name} ended with code {process.returncode}: {read_last_line(log)} (log: {log})')
        self._on_result(StepResult(name, time.monotonic() - begin, usage.ru_maxrss * 1024 / 1e6))

    def _collect(self, provisioned: Document) -> Outputs:
        """What the step's output file says, as Kubeflow records it."""
        file = Path(provisioned['outputFile'])
        said = json.loads(file.read_text()) if file.exists() else {}
        artifacts = {}
        for name, entry in provisioned['artifacts'].items():
            self._recorded += 1
            spoken = said.get('artifacts', {}).get(name, {}).get('artifacts', [{}])[0]
            artifacts[name] = record_artifact(name, self._recorded, entry['artifacts'][0], spoken)
            folder = to_path(artifacts[name]['uri'], self._root)
            if not folder.startswith(self._root):
                raise StepError(
                    f'The output {name} is at {artifacts[name]["uri"]}, where Kubeflow uploads nothing from.'
                )
        return Outputs(artifacts, said.get('parameterValues', {}))


def read_last_line(log: Path) -> str:
    """The last sentence that a failed step wrote."""
    lines = [line for line in log.read_text(errors='replace').splitlines()[-_REPORT_LINES:] if line.strip()]
    return next((line for line in reversed(lines) if line.startswith('error: ')), lines[-1] if lines else 'no output')


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
