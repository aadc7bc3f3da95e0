"""Measures the memory of a step, with which `kubeflow.rehearsal.launcher` waits for the step to end."""

import contextlib
import subprocess

import psutil

_SAMPLE_S = 0.25


def _measure_bytes(process: psutil.Process) -> int:
    """Returns the memory of a process and its children, in which a page that they share counts once."""
    total = 0
    with contextlib.suppress(psutil.Error):  # the process has just ended
        for each in (process, *process.children(recursive=True)):
            total += each.memory_full_info().pss
    return total


def wait_and_measure(process: subprocess.Popen[bytes]) -> float:
    """Waits for a process to end, which sets its return code, and samples its memory four times a second.

    A pod's memory limit counts all its processes together. The system's own figure (ru_maxrss) also sees peaks between
    two samples, but only of one process at a time.

    Returns:
      The most memory that the process and its children held together in a sample, in MB.
    """
    watched, peak = psutil.Process(process.pid), 0
    while True:
        peak = max(peak, _measure_bytes(watched))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SAMPLE_S)
            return peak / 1e6
