"""The commands on a serving folder: what is in it, and which version serves."""

import json
import time
import urllib.error
import urllib.request

from components.errors import PipelineError
from components.places import Place
from components.serving import version_labels, versions
from components.serving.models_config import MODEL_NAME

_POLL_S = 1.0
_TIMEOUT_S = 600.0


def describe_versions(serving: Place) -> list[str]:
    """A line for each version, the oldest first: number, labels, accuracy, when it was pushed, run and data."""
    lines = []
    for version in versions.list_versions(serving):
        info, data = version.info, version.info.get('data', {})
        source = ' '.join(data['source'][key] for key in ('kind', 'name')) if 'source' in data else data.get('folder')
        accuracy = f'accuracy {info["accuracy"]:.3f} on {info["images"]:,} images' if info else 'pushed by other means'
        parts = (
            ', '.join(version.labels) or ('loaded' if version.is_listed else '-'),
            accuracy,
            info.get('pushed'),
            info.get('run') and f'run {info["run"]}',
            source and f'data {source}',
        )
        lines.append(f'{version.number}  ' + '  '.join(part for part in parts if part))
    return lines or [f'{serving} has no version yet.']


def wait_until_loaded(server: str, number: int, timeout_s: float = _TIMEOUT_S) -> None:
    """Asks TensorFlow Serving's REST API for a version's state until it is AVAILABLE.

    Args:
      server: such as http://localhost:8501.
      number: of the version.
      timeout_s: seconds to go on asking.

    Raises:
      PipelineError: the version was not loaded in time; says what the server answered last.
    """
    url = f'{server.rstrip("/")}/v1/models/{MODEL_NAME}/versions/{number}'
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                states = [status['state'] for status in json.load(response)['model_version_status']]
                if 'AVAILABLE' in states:
                    return
                answer = ', '.join(states)
        except (OSError, ValueError, KeyError) as error:
            answer = str(error)
        if time.monotonic() > deadline:
            raise PipelineError(
                f'{url} did not become AVAILABLE within {timeout_s:.0f} s (last answer: {answer}); no label was moved. '
                'Does the server poll this models.config (--model_config_file_poll_wait_seconds)?'
            )
        time.sleep(_POLL_S)


def promote(serving: Place, number: int, label: version_labels.Label, server: str | None) -> str:
    """Gives a version a label, see `version_labels.promote`, and returns what was done, in a sentence."""
    wait = (lambda: wait_until_loaded(server, number)) if server else None
    outcome = version_labels.promote(serving, number, label, wait)
    if outcome == 'listed':
        return (
            f'version {number} is listed, so that a server loads it; run the same again when it has (or give --server '
            'http://HOST:8501 to wait for that), since TensorFlow Serving refuses a label of what is not loaded'
        )
    return f'version {number} is {label}' + (' already' if outcome == 'unchanged' else '')


def rollback(serving: Place) -> str:
    """Makes the version that was stable before stable again. Returns what was done, in a sentence."""
    good, bad = version_labels.rollback(serving)
    return f'version {good} is stable again; {bad} was'


def prune(serving: Place, keep: int) -> str:
    """Removes old versions. Returns what was done, in a sentence."""
    removed = version_labels.prune(serving, keep)
    return f'removed {", ".join(map(str, removed))}' if removed else 'nothing to remove'
