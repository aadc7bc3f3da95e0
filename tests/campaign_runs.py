"""Runs the pipeline in a process of its own and follows its lines, for the campaign."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.config import Layout

_PROJECT = Path(__file__).parents[1]
_SETTINGS = (
    *('--set', 'trainer.image_size=32'),
    *('--set', 'trainer.epochs=3'),
    *('--set', 'trainer.head_units=16'),
    *('--set', 'gate.accuracy=0'),
    *('--set', 'gate.recall=0'),
    *('--set', 'gate.calibration_error=1'),
)
_STEP = re.compile(r'(\w+|\([\w ]+\)) +[\d.]+ s  (.*)')
REUSED = 'reused: '  # how the note of a component that did not run begins


class Step(NamedTuple):
    """A line of a run."""

    name: str
    """The component, or such as '(imports)'."""
    seconds: float
    """The time since the line before it."""
    note: str
    """What the line says."""


class Run(NamedTuple):
    """A run that has ended."""

    layout: Layout
    exit_code: int
    steps: list[Step]
    verdict: str
    """The last line but the indented ones, which say what to do next."""
    error: str
    """What it wrote to standard error."""

    def count_reused(self) -> int:
        """Returns the number of components whose results an earlier run had made."""
        return sum(step.note.startswith(REUSED) for step in self.steps)


def start(root: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """Starts `python -m pipeline run` in its own process group, with its own temp folder beside the root."""
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-m', 'pipeline', 'run', '--root', root, *_SETTINGS, *arguments]
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=_PROJECT,
        env={**os.environ, 'TMPDIR': tempfile.mkdtemp(dir=root.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def follow(process: subprocess.Popen[str]) -> Iterator[Step | str]:
    """Yields the steps of a run as they are printed, and when the run has ended its last line but the indented ones."""
    before = time.monotonic()
    last = ''
    for line in process.stdout:
        match = _STEP.match(line)
        if match:
            now = time.monotonic()
            yield Step(match[1], now - before, match[2])
            before = now
        if not line.startswith(' '):  # as what to do next is
            last = line.strip()
    yield last


def run(root: Path, *arguments: str | Path) -> Run:
    """Runs the pipeline from start to end.

    Args:
      root: the root of the run.
      arguments: added to the command line.
    """
    with start(root, *arguments) as process:
        *steps, verdict = follow(process)
        error = process.stderr.read()
    return Run(Layout(str(root)), process.returncode, steps, verdict, error)
