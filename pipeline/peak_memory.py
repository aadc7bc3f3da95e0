"""The peak memory of this process since a moment, as Linux keeps it: see proc_pid_clear_refs(5)."""

from pathlib import Path

_PROCESS = Path('/proc/self')
_RESET_PEAK = '5'


def reset_peak() -> None:
    """Makes the peak begin again with the memory that is in use now; does nothing where the system cannot."""
    try:
        (_PROCESS / 'clear_refs').write_text(_RESET_PEAK)
    except OSError:
        return


def read_peak_mb() -> float | None:
    """Returns the largest resident memory since the last `reset_peak` in megabytes; None where the system cannot."""
    try:
        lines = (_PROCESS / 'status').read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith('VmHWM:')), None)
