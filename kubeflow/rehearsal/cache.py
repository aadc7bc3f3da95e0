"""What a server keeps between runs: the outputs of steps, which its cache reuses, and the number of artifacts.

The rehearsal keeps it in a file of its folder, so a second rehearsal in the same folder reuses what a server would.
Functions name the function of the server that they follow, in backend/src/v2 of kubeflow/pipelines.
"""

import hashlib
import json
from pathlib import Path

from components.errors import UsageError, to_one_line
from components.staging import write_text
from kubeflow.package import Document
from kubeflow.rehearsal.driver import Outputs


class ServerCache:
    """The file in a rehearsal's folder.

    Args:
      file: need not exist.

    Raises:
      UsageError: the file cannot be read, or is not such a file.
    """

    def __init__(self, file: Path):
        self._file = file
        try:
            kept: Document = json.loads(file.read_text()) if file.exists() else {'artifacts': 0, 'steps': {}}
            self._artifacts: int = kept['artifacts']
            self._steps: dict[str, Document] = kept['steps']
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f'{file} cannot be read ({to_one_line(error)}); remove it and rehearse again.') from error

    def count_artifact(self) -> int:
        """Returns the number of a new artifact, which is its id in ML Metadata, from 1."""
        self._artifacts += 1
        return self._artifacts

    def find(self, fingerprint: str) -> Outputs | None:
        """Returns the outputs of an earlier step with that fingerprint; None if there is none."""
        step = self._steps.get(fingerprint)
        return None if step is None else Outputs(step['artifacts'], step['parameters'])

    def keep(self, fingerprint: str, outputs: Outputs) -> None:
        """Keeps the outputs of a step that succeeded; the file is written whole or not at all."""
        self._steps[fingerprint] = {'artifacts': outputs.artifacts, 'parameters': outputs.parameters}
        write_text(self._file, json.dumps({'artifacts': self._artifacts, 'steps': self._steps}, indent=2))


def compute_fingerprint(container: Document, executor_input: Document, definitions: Document, claims: list[str]) -> str:
    """Computes the cache key of a step (driver/cache.go: getFingerPrint; cacheutils/cache.go: GenerateCacheKey).

    Args:
      container: of the document.
      executor_input: see `kubeflow.rehearsal.launcher.Launcher.launch`. Of input artifacts only the ids count, and of
        output artifacts everything but the URI.
      definitions: `outputDefinitions` of the component.
      claims: the names of the volume claims that the step mounts.
    """
    inputs, outputs = executor_input['inputs'], executor_input['outputs']
    key = {
        'inputs': {name: [each['name'] for each in entry['artifacts']] for name, entry in inputs['artifacts'].items()},
        'parameters': inputs['parameterValues'],
        'outputs': {
            name: [{**each, 'uri': ''} for each in entry['artifacts']] for name, entry in outputs['artifacts'].items()
        },
        'output_parameters': definitions.get('parameters', {}),
        'command': [*container.get('command', []), *container.get('args', [])],
        'image': container.get('image'),
        'claims': sorted(set(claims)),
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
