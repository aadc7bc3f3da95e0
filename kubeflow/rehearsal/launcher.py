"""What Kubeflow's launcher does in a step's pod, here: runs the container's command, collects what it leaves behind.

A folder stands for the containers' root: the object store's local copies lie in it under the launcher's own paths.
A step gets the environment that its container names, and nothing else of this machine's but the path to Python.
Functions name the one that they stand for, in backend/src/v2 of kubeflow/pipelines.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import PipelineError, UsageError, to_one_line
from kubeflow.mirrors import LOGS_KEY, ROOT_VARIABLE, to_path
from kubeflow.package import Document, parse_value
from kubeflow.rehearsal.driver import Outputs
from kubeflow.rehearsal.memory import wait_and_measure

_REPORT_LINES = 20  # of a failed step's output that are searched for its sentence


class StepResult(NamedTuple):
    """A step that has run. peak_mb: the most memory that its processes held together."""

    task: str
    seconds: float
    peak_mb: float

    def __str__(self) -> str:
        return f'{self.task:<17} {self.seconds:6.1f} s  {self.peak_mb / 1000:5.2f} GB'


class StepError(PipelineError):
    """A step that failed; the sentence is its own."""


class Launcher:
    """Runs the containers of one rehearsal.

    Args:
      root: the folder that stands for the containers' root.
      logs: the folder for what they print.
      mounts: the folder of this machine for each path where the containers mount a volume, the deepest first.
      on_result: called after every step that has not failed.
    """

    def __init__(self, root: str, logs: Path, mounts: dict[str, str], on_result: Callable[[StepResult], None]):
        self._root = root
        self._logs = logs
        self._mounts = mounts
        self._on_result = on_result
        self._recorded = 0

    def launch(self, name: str, container: Document, executor_input: Document, definitions: Document) -> Outputs:
        """Runs a container to its end.

        Args:
          name: of the task.
          container: from the document.
          executor_input: with outputs from `kubeflow.rehearsal.driver.provision_outputs`.
          definitions: of the component's outputs.

        Raises:
          StepError: it failed, left out a parameter, or put an artifact where Kubeflow uploads nothing from.
        """
        inputs, outputs = executor_input['inputs'], executor_input['outputs']
        values = {key: self._map_mounts(value) for key, value in inputs['parameterValues'].items()}
        executor_input = {'inputs': {**inputs, 'parameterValues': values}, 'outputs': outputs}
        for entry in outputs['artifacts'].values():
            Path(to_path(entry['artifacts'][0]['uri'], self._root)).parent.mkdir(parents=True, exist_ok=True)
        Path(to_path(outputs['artifacts'][LOGS_KEY]['artifacts'][0]['uri'], self._root)).touch()
        for entry in outputs['parameters'].values():
            Path(entry['outputFile']).parent.mkdir(parents=True, exist_ok=True)
            Path(entry['outputFile']).unlink(missing_ok=True)  # another step's, which has a folder of its own in a pod
        self._on_result(self._run_container(name, container, executor_input))
        return self._collect(name, outputs, definitions)

    def _map_mounts(self, value: Any) -> Any:
        """A parameter whose paths under a mount lead to this machine's folder for it."""
        if isinstance(value, str):
            for path, folder in self._mounts.items():
                value = re.sub(rf'(^|"){re.escape(path)}(?=[/"\\]|$)', lambda match, to=folder: match[1] + to, value)
        return value

    def _run_container(self, name: str, container: Document, executor_input: Document) -> StepResult:
        arguments = [*container.get('command', []), *container.get('args', [])]
        command = [self._map_mounts(fill_placeholders(part, executor_input, self._root)) for part in arguments]
        home = Path(self._root, 'home')
        environment = {
            'PATH': f'{Path(sys.executable).parent}:{os.defpath}',
            'HOME': str(home),
            ROOT_VARIABLE: self._root,
            **{entry['name']: entry.get('value', '') for entry in container.get('env', [])},
        }
        for folder in (home, self._logs):
            folder.mkdir(parents=True, exist_ok=True)
        log = self._logs / f'{name}.log'
        begin = time.monotonic()
        with log.open('wb') as file:
            try:
                process = subprocess.Popen(command, cwd=home, env=environment, stdout=file, stderr=subprocess.STDOUT)
            except (OSError, IndexError) as error:
                raise StepError(f'{name} cannot be started: {to_one_line(error)}.') from error
            peak_mb = wait_and_measure(process)
        if process.returncode:
            raise StepError(f'{name} ended with code {process.returncode}: {read_last_line(log)} (log: {log})')
        return StepResult(name, time.monotonic() - begin, peak_mb)

    def _collect(self, task: str, provisioned: Document, definitions: Document) -> Outputs:
        """What the step's output file says, as Kubeflow records it, and parameters that have a file of their own."""
        file = Path(provisioned['outputFile'])
        said = json.loads(file.read_text()) if file.exists() else {}
        artifacts = {}
        for name, entry in provisioned['artifacts'].items():
            if name == LOGS_KEY:
                continue
            self._recorded += 1
            spoken = said.get('artifacts', {}).get(name, {}).get('artifacts', [{}])[0]
            artifacts[name] = record_artifact(name, self._recorded, entry['artifacts'][0], spoken)
            folder = to_path(artifacts[name]['uri'], self._root)
            if not folder.startswith(self._root):
                raise StepError(
                    f'The output {name} is at {artifacts[name]["uri"]}, where Kubeflow uploads nothing from.'
                )
        parameters = said.get('parameterValues', {})
        for name in sorted(set(provisioned['parameters']) - set(parameters)):
            kind = definitions['parameters'][name]['parameterType']
            parameters[name] = _read_parameter(task, name, Path(provisioned['parameters'][name]['outputFile']), kind)
        return Outputs(artifacts, parameters)


def read_last_line(log: Path) -> str:
    """The last sentence that a failed step wrote."""
    lines = [line for line in log.read_text(errors='replace').splitlines()[-_REPORT_LINES:] if line.strip()]
    return next((line for line in reversed(lines) if line.startswith('error: ')), lines[-1] if lines else 'no output')


def _read_parameter(task: str, name: str, file: Path, kind: str) -> Any:
    """An output parameter that has a file of its own (component/launcher_v2.go: collectOutputParameters)."""
    if not file.exists():
        raise StepError(f'{task} has not written its output parameter {name}.')
    text = file.read_text()
    try:
        return parse_value(name, text.lower() if kind == 'BOOLEAN' else text, kind)
    except UsageError as error:
        raise StepError(f'{task} has not written its output as it should: {error}') from error


def _format_value(value: Any) -> str:
    """A parameter as a placeholder's text: numbers in their shortest form, lists and objects as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def fill_placeholders(argument: str, executor_input: Document, root: str) -> str:
    """An argument of a container's command (component/launcher_v2.go: compileCmdAndArgs)."""
    inputs, outputs = executor_input['inputs'], executor_input['outputs']
    argument = argument.replace('{{$}}', json.dumps(executor_input))
    for name, value in inputs['parameterValues'].items():
        argument = argument.replace(f"{{{{$.inputs.parameters['{name}']}}}}", _format_value(value))
    for side, artifacts in (('inputs', inputs['artifacts']), ('outputs', outputs['artifacts'])):
        for name, entry in artifacts.items():
            uri = entry['artifacts'][0]['uri']
            argument = argument.replace(f"{{{{$.{side}.artifacts['{name}'].uri}}}}", uri)
            argument = argument.replace(f"{{{{$.{side}.artifacts['{name}'].path}}}}", to_path(uri, root))
    for name, entry in outputs['parameters'].items():
        argument = argument.replace(f"{{{{$.outputs.parameters['{name}'].output_file}}}}", entry['outputFile'])
    return argument


def _record_value(value: Any) -> Any:
    """A metadata value as ML Metadata gives it back (metadata/converter.go: StructValueToMLMDValue)."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return {'list': value}
    return {'struct': value} if isinstance(value, dict) else value


def record_artifact(name: str, number: int, provisioned: Document, said: Document) -> Document:
    """An output as the next step is given it (metadata/client.go: RecordArtifact, ToRuntimeArtifact).

    Args:
      name: of the output.
      number: stands for its id in ML Metadata.
      provisioned: from `provision_outputs`.
      said: what the step's output file says of it.
    """
    metadata = {**provisioned['metadata'], **said.get('metadata', {})}
    return {
        'name': str(number),
        'uri': said.get('uri') or provisioned['uri'],
        'type': {'instanceSchema': ''},  # which Kubeflow forgets (metadata/client.go: GetOutputArtifactsByExecutionId)
        'metadata': {
            'display_name': name,
            'store_session_info': '{}',
            **{key: _record_value(value) for key, value in metadata.items() if value is not None},
        },
    }
