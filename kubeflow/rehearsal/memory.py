"""The memory of a step: a pod's limit counts all its processes together."""

import contextlib
import subprocess

import psutil

_SAMPLE_S = 0.25


def _measure_bytes(process: psutil.Process) -> int:
    """What a process and its children hold, each page that they share once."""
    total = 0
    with contextlib.suppress(psutil.Error):  # it has just ended
        for each in (process, *process.children(recursive=True)):
            total += each.memory_full_info().pss
    return total


def wait_and_measure(process: subprocess.Popen) -> float:
    """Waits for a process to end, and gives it its return code.

    Returns:
      The most that it and its children held together, in MB, looked at four times a second. The system's own figure
      (ru_maxrss) knows shorter peaks, but of one process alone, and of what that was before its exec.
    """
    watched, peak = psutil.Process(process.pid), 0
    while True:
        peak = max(peak, _measure_bytes(watched))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SAMPLE_S)
            return peak / 1e6
