"""The part of Kubeflow's launcher in the rehearsal: runs a step's command, and collects its outputs.

A folder of this machine takes the place of the containers' root folder. It has the local copies of the object store,
under the same paths as in a container. A step gets the environment variables that its container names, those that
Kubernetes, Argo and Kubeflow give a pod, and of this machine's environment only the path to Python. It is not promised
a GPU, which this machine may lack. When a pod fails, what it wrote is lost, except on volumes and in object stores.
Functions name the function of the server that they follow, in backend/src/v2 of kubeflow/pipelines.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import PipelineError, UsageError, to_one_line
from components.progress import track
from kubeflow.mirrors import LOGS_KEY, ROOT_VARIABLE, to_path
from kubeflow.package import Document, parse_value
from kubeflow.rehearsal.driver import Outputs, Run
from kubeflow.rehearsal.memory import wait_and_measure
from kubeflow.steps import GPU_VARIABLE

_REPORT_LINES = 20  # at the end of a failed step's output, in which its error message is searched
_POD_VARIABLES = {
    # the kubelet's, for the service of the API server in the namespace default
    'KUBERNETES_SERVICE_HOST': '10.96.0.1',
    'KUBERNETES_SERVICE_PORT': '443',
    'KUBERNETES_SERVICE_PORT_HTTPS': '443',
    'KUBERNETES_PORT': 'tcp://10.96.0.1:443',
    'KUBERNETES_PORT_443_TCP': 'tcp://10.96.0.1:443',
    'KUBERNETES_PORT_443_TCP_PROTO': 'tcp',
    'KUBERNETES_PORT_443_TCP_PORT': '443',
    'KUBERNETES_PORT_443_TCP_ADDR': '10.96.0.1',
    # Argo 4's, from a recorded pod
    'ARGO_CONTAINER_NAME': 'main',
    'ARGO_INCLUDE_SCRIPT_OUTPUT': 'false',
    'ARGO_DEADLINE': '0001-01-01T00:00:00Z',
    'ARGO_PROGRESS_FILE': '/var/run/argo/progress',
    'ARGO_PROGRESS_PATCH_TICK_DURATION': '1m0s',
    'ARGO_PROGRESS_FILE_TICK_DURATION': '3s',
}
_SESSIONS = {
    # config/env.go: getDefaultMinioSessionInfo; config/s3.go and config/gcs.go: ProvideSessionInfo, without a provider
    # of the namespace's own
    'minio': {
        'accessKeyKey': 'accesskey',
        'disableSSL': 'true',
        'endpoint': 'seaweedfs.kubeflow:9000',
        'fromEnv': 'false',
        'maxRetries': '5',
        'region': 'minio',
        'secretKeyKey': 'secretkey',
        'secretName': 'mlpipeline-minio-artifact',
    },
    's3': {'fromEnv': 'true'},
    'gs': {'fromEnv': 'true'},
}
"""By the scheme of an artifact: how the launcher opens its store, which it writes into the artifact's metadata."""


class StepResult(NamedTuple):
    """A step that succeeded.

    task: its name.
    seconds: from the start to the end of its process.
    peak_mb: the most memory that its processes held together, in MB.
    """

    task: str
    seconds: float
    peak_mb: float

    def __str__(self) -> str:
        return f'{self.task:<17} {self.seconds:6.1f} s  {self.peak_mb / 1000:5.2f} GB'


class StepError(PipelineError):
    """A step failed; the message is the step's own."""


class Launcher:
    """Runs the containers of one rehearsal.

    Args:
      root: the folder that takes the place of the containers' root folder.
      logs: the folder for the output of the steps, one file for each.
      mounts: the folder of this machine for each path where the containers mount a volume, the deepest path first.
      run: of the package.
      count_artifact: gives the id of a new artifact.
      on_result: called after every step that succeeded.
    """

    def __init__(
        self,
        root: str,
        logs: Path,
        mounts: dict[str, str],
        run: Run,
        count_artifact: Callable[[], int],
        on_result: Callable[[StepResult], None],
    ):
        self._root = root
        self._logs = logs
        self._mounts = mounts
        self._run = run
        self._count_artifact = count_artifact
        self._on_result = on_result

    def launch(
        self,
        name: str,
        container: Document,
        executor_input: Document,
        definitions: Document,
        attempt: int = 0,
        *,
        is_retried: bool = False,
    ) -> Outputs:
        """Runs a container to its end.

        Args:
          name: of the task.
          container: of the document.
          executor_input: `inputs`, and `outputs` from `kubeflow.rehearsal.driver.provision_outputs`.
          definitions: `outputDefinitions` of the component.
          attempt: how often the step was started before.
          is_retried: whether the task has a retry policy; then the pod is told its attempt.

        Returns:
          The outputs of the step, as the next step is given them.

        Raises:
          StepError: the step failed, did not write an output parameter, or put an artifact where Kubeflow does not
            upload it.
        """
        inputs, outputs = executor_input['inputs'], executor_input['outputs']
        values = {key: self._map_mounts(value) for key, value in inputs['parameterValues'].items()}
        [logs] = outputs['artifacts'][LOGS_KEY]['artifacts']
        qualified = {'artifacts': [{**logs, 'uri': f'{logs["uri"]}-{attempt}'}]}  # qualifyExecutorLogsURI
        outputs = {**outputs, 'artifacts': {**outputs['artifacts'], LOGS_KEY: qualified}}
        executor_input = {'inputs': {**inputs, 'parameterValues': values}, 'outputs': outputs}
        for entry in outputs['artifacts'].values():
            Path(to_path(entry['artifacts'][0]['uri'], self._root)).parent.mkdir(parents=True, exist_ok=True)
        Path(to_path(qualified['artifacts'][0]['uri'], self._root)).touch()
        folder = Path(outputs['outputFile']).parent
        others = {*folder.parent.iterdir()}
        for entry in outputs['parameters'].values():
            Path(entry['outputFile']).parent.mkdir(parents=True, exist_ok=True)
            # An earlier step may have left a file of that name; in a cluster each pod has a folder of its own.
            Path(entry['outputFile']).unlink(missing_ok=True)
        variables = {'KFP_RETRY_INDEX': str(attempt)} if is_retried else {}
        try:
            with track(name):
                result = self._run_container(name, container, executor_input, variables, attempt)
            collected = self._collect(name, outputs, definitions)
        except StepError:
            _discard(folder, others)
            raise
        self._on_result(result)
        return collected

    def _map_mounts(self, value: Any) -> Any:
        """Replaces the mount paths in a parameter with the folders of this machine."""
        if isinstance(value, str):
            for path, folder in self._mounts.items():
                escaped = folder.replace('\\', r'\\')  # in a replacement a backslash begins a reference to a group
                value = re.sub(rf'(^|"){re.escape(path)}(?=[/"\\]|$)', rf'\g<1>{escaped}', value)
        return value

    def _make_environment(self, container: Document) -> dict[str, str]:
        """Returns the variables of a pod, without those that only this attempt has."""
        workflow, number = self._run.workflow, uuid.uuid4().int % 2**32
        environment = {
            **_POD_VARIABLES,
            'ARGO_NODE_ID': f'{workflow}-{number}',
            'KFP_POD_NAME': f'{workflow}-system-container-impl-{number}',
            'KFP_POD_UID': str(uuid.uuid4()),
            'PATH': f'{Path(sys.executable).parent}:{os.defpath}',
            'HOME': str(Path(self._root, 'home')),
            ROOT_VARIABLE: self._root,
            **{entry['name']: entry.get('value', '') for entry in container.get('env', [])},
        }
        environment.pop(GPU_VARIABLE, None)
        return environment

    def _run_container(
        self, name: str, container: Document, executor_input: Document, variables: dict[str, str], attempt: int
    ) -> StepResult:
        arguments = [*container.get('command', []), *container.get('args', [])]
        command = [self._map_mounts(fill_placeholders(part, executor_input, self._root)) for part in arguments]
        home = Path(self._root, 'home')
        environment = {**self._make_environment(container), **variables}
        for folder in (home, self._logs):
            folder.mkdir(parents=True, exist_ok=True)
        log = self._logs / (f'{name}-{attempt}.log' if attempt else f'{name}.log')
        begin = time.monotonic()
        with log.open('wb') as file, tempfile.TemporaryDirectory() as temporary:  # a pod's /tmp ends with it
            environment['TMPDIR'] = temporary
            try:
                process = subprocess.Popen(command, cwd=home, env=environment, stdout=file, stderr=subprocess.STDOUT)
            except (OSError, IndexError) as error:
                raise StepError(f'{name} cannot be started: {to_one_line(error)}.') from error
            peak_mb = wait_and_measure(process)
        code = process.returncode
        if code:
            how = f'was killed by signal {-code}' if code < 0 else f'ended with code {code}'
            pod = '' if code == 1 else ' (its pod ends with code 1)'  # the launcher's, whatever the command's is
            raise StepError(f'{name} {how}{pod}: {read_error(log)} (log: {log})')
        return StepResult(name, time.monotonic() - begin, peak_mb)

    def _collect(self, task: str, provisioned: Document, definitions: Document) -> Outputs:
        """Collects the outputs from the step's output file and from the files of output parameters."""
        file = Path(provisioned['outputFile'])
        written = json.loads(file.read_text()) if file.exists() else {}
        artifacts = {}
        for name, entry in provisioned['artifacts'].items():
            if name == LOGS_KEY:
                continue
            changes = written.get('artifacts', {}).get(name, {}).get('artifacts', [{}])[0]
            artifacts[name] = record_artifact(name, self._count_artifact(), entry['artifacts'][0], changes)
            folder = to_path(artifacts[name]['uri'], self._root)
            if not folder.startswith(self._root):
                uri = artifacts[name]['uri']
                raise StepError(f'{task} put its output {name} at {uri}, and Kubeflow uploads nothing from there.')
        parameters = written.get('parameterValues', {})
        for name in sorted(set(provisioned['parameters']) - set(parameters)):
            kind = definitions['parameters'][name]['parameterType']
            parameters[name] = _read_parameter(task, name, Path(provisioned['parameters'][name]['outputFile']), kind)
        return Outputs(artifacts, parameters)


def _discard(folder: Path, others: set[Path]) -> None:
    """Removes what a failed pod wrote below and beside the folder of its outputs, except the logs of the attempts.

    Args:
      folder: of the outputs.
      others: what lay beside and at `folder` before the pod was started.
    """
    logs = set(folder.glob(f'{LOGS_KEY}-*'))
    for each in ({*folder.iterdir()} - logs) | ({*folder.parent.iterdir()} - others):
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()


def read_error(log: Path) -> str:
    """Returns the last error message in a failed step's log; its last line if there is no error message."""
    lines = [line for line in log.read_text(errors='replace').splitlines()[-_REPORT_LINES:] if line.strip()]
    return next((line for line in reversed(lines) if line.startswith('error: ')), lines[-1] if lines else 'no output')


def _read_parameter(task: str, name: str, file: Path, kind: str) -> Any:
    """Reads an output parameter from its file (component/launcher_v2.go: collectOutputParameters)."""
    if not file.exists():
        raise StepError(f'{task} has not written its output parameter {name}.')
    text = file.read_text()
    try:
        return parse_value(name, text.lower() if kind == 'BOOLEAN' else text, kind)
    except UsageError as error:
        raise StepError(f'{task} has written an output parameter of a wrong type: {error}') from error


def _format_value(value: Any) -> str:
    """Formats a parameter for a placeholder: numbers in their shortest form, lists and objects as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _write_numbers(value: Any) -> Any:
    """Writes numbers as Go does (protojson), which has no point in whole ones: 6 for 6.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _write_numbers(item) for key, item in value.items()}
    return [_write_numbers(item) for item in value] if isinstance(value, list) else value


def write_input(executor_input: Document) -> Document:
    """Returns an ExecutorInput as the launcher writes it: without empty fields, and with whole numbers as such."""
    inputs = {key: value for key, value in executor_input['inputs'].items() if value}
    outputs = {key: value for key, value in executor_input['outputs'].items() if value}
    written: Document = _write_numbers({'inputs': inputs, 'outputs': outputs})
    return written


def fill_placeholders(argument: str, executor_input: Document, root: str) -> str:
    """Fills in the placeholders in an argument of a container (component/launcher_v2.go: compileCmdAndArgs).

    Args:
      argument: such as "{{$.inputs.parameters['epochs']}}".
      executor_input: as in `Launcher.launch`.
      root: see `kubeflow.mirrors.to_path`.
    """
    inputs, outputs = executor_input['inputs'], executor_input['outputs']
    argument = argument.replace('{{$}}', json.dumps(write_input(executor_input)))
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
    """Converts a metadata value to what ML Metadata gives back (metadata/converter.go: StructValueToMLMDValue)."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return {'list': value}
    return {'struct': value} if isinstance(value, dict) else value


def record_artifact(name: str, number: int, provisioned: Document, written: Document) -> Document:
    """Returns an output artifact as the next step is given it (metadata/client.go: RecordArtifact, ToRuntimeArtifact).

    Args:
      name: of the output.
      number: used as the artifact's id in ML Metadata.
      provisioned: the artifact from `provision_outputs`.
      written: the artifact in the step's output file, which has the new `uri` and `metadata`.
    """
    metadata = {**provisioned.get('metadata', {}), **written.get('metadata', {})}
    uri = written.get('uri') or provisioned['uri']
    scheme = provisioned['uri'].partition('://')[0]
    return {
        'name': str(number),
        'uri': uri,
        'type': {'instanceSchema': ''},  # Kubeflow loses the type (metadata/client.go: GetOutputArtifactsByExecutionId)
        'metadata': {
            'display_name': name,
            'store_session_info': json.dumps({'Provider': scheme, 'Params': _SESSIONS[scheme]}, separators=(',', ':')),
            **{key: _record_value(value) for key, value in metadata.items() if value is not None},
        },
    }
