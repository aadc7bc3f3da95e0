"""What a user sees of a run: our lines on the terminal, everybody's chatter in the log file."""

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


class _TerminalHandler(logging.Handler):
    """Shows what our own packages log, such as an epoch's line, between the component lines."""

    def __init__(self, terminal: TextIO):
        super().__init__(logging.INFO)
        self._terminal = terminal

    def emit(self, record):
        print(f'    {record.getMessage()}', file=self._terminal)


def _flush_or_drop(stream: TextIO, descriptor: int) -> None:
    """Flushes; what the log's full disk does not take is dropped, or it would come out on the terminal later."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), descriptor)
            stream.flush()


@contextlib.contextmanager
def divert_chatter(log_file: Path = Path(os.devnull), *, verbose: bool) -> Iterator[TextIO]:
    """Sends file descriptors 1 and 2 to the log file, and gives a stream that still reaches standard output.

    Descriptors rather than `sys.stdout`: most of the chatter is C++'s and other processes'.

    Args:
      log_file: appended to.
      verbose: shows the chatter on standard error as well.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved_out, saved_error = os.dup(1), os.dup(2)
    tee = None
    with contextlib.ExitStack() as stack:
        terminal = stack.enter_context(os.fdopen(os.dup(saved_out), 'w', buffering=1))
        if verbose:
            tee = subprocess.Popen(['tee', '-a', str(log_file)], stdin=subprocess.PIPE, stdout=saved_error)
            sink = tee.stdin.fileno()
        else:
            sink = stack.enter_context(log_file.open('a')).fileno()
        handler = _TerminalHandler(terminal)
        logger = logging.getLogger('trainer')
        try:
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            logging.basicConfig(stream=sys.stderr, level=logging.INFO, format='%(asctime)s %(name)s %(message)s')
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            yield terminal
        finally:
            logger.removeHandler(handler)
            _flush_or_drop(sys.stdout, 1)
            _flush_or_drop(sys.stderr, 2)
            os.dup2(saved_out, 1)
            os.dup2(saved_error, 2)
            os.close(saved_out)
            os.close(saved_error)
            if tee:
                tee.stdin.close()
                tee.wait()
