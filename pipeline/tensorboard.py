"""The `tensorboard` command: the trainings of all runs of a root in TensorBoard, under names that people recognise."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from components.errors import UsageError
from pipeline.config import Layout
from pipeline.run_history import Run, read_runs


def list_logs(runs: Sequence[Run]) -> dict[str, Path]:
    """Lists the Trainer's folders that hold TensorBoard's logs, by name; a training that was reused stands there once.

    A name has the start of the run that trained, its pipeline, and what came of it. TensorBoard sorts by name.
    """
    logs: dict[str, Path] = {}
    for run in runs:
        for step in run.steps:
            for folder in (Path(each.uri) for each in step.outputs.values() if step.component == 'Trainer'):
                if folder not in logs.values() and any(folder.rglob('events.out.tfevents.*')):
                    accuracy = f' {run.accuracy.value:.3f}' if run.accuracy else ''
                    logs[f'{run.started:%Y-%m-%d %H.%M.%S} {run.pipeline} {run.outcome}{accuracy}'] = folder
    return logs


def link_logs(logs: dict[str, Path], folder: Path) -> None:
    """Makes a link for each log, because TensorBoard names a run after its folder."""
    for name, log in logs.items():
        (folder / name).symlink_to(log)


def show(root: str, port: int) -> int:
    """Runs TensorBoard until it is interrupted, and returns its exit code.

    Args:
      root: the folder that runs wrote to.
      port: where it listens on this machine; 0 for a free port.

    Raises:
      UsageError: no run of the root has trained.
    """
    layout = Layout(root)
    logs = list_logs(read_runs(layout))
    if not logs:
        raise UsageError(
            f'No run in {layout.root} has a training to show: each ended before its first epoch, or gc removed it.'
        )
    with tempfile.TemporaryDirectory(prefix='tensorboard-') as folder:
        link_logs(logs, Path(folder))
        command = [sys.executable, '-m', 'tensorboard.main', '--logdir', folder, '--port', str(port)]
        return subprocess.run(command, check=False).returncode
