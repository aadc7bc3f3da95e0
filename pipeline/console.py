"""What a user sees of a command: our own lines on the terminal, and everything else in the log file."""

import contextlib
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_LOG_FORMAT = '%(asctime)s %(name)s %(message)s'
_LEAST_WIDTH = 40  # columns; lines on a narrower terminal are not made shorter than this


def shorten_paths(text: str) -> str:
    """Makes the paths in a text that are below the working folder relative to it."""
    folder = os.getcwd().rstrip('/')
    return re.sub(rf'(?<![\w/.:-]){re.escape(folder)}/(?=[^\s/])', '', text) if folder else text


def wrap_text(text: str, width: int | None, hang: str = '    ') -> str:
    """Wraps each line of a text between words.

    Args:
      text: one line or more.
      width: of the terminal, in columns; None leaves lines as they are.
      hang: what the second and further lines of a wrapped line begin with.
    """
    if width is None:
        return text
    return '\n'.join(
        textwrap.fill(
            line,
            max(width, _LEAST_WIDTH),
            subsequent_indent=hang,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        )
        for line in text.split('\n')
    )


def measure_width(stream: TextIO) -> int | None:
    """Returns the columns of the terminal that a stream writes to; None for a file or a pipe, which has no width."""
    if not stream.isatty():
        return None
    # Not shutil.get_terminal_size, which asks the terminal of file descriptor 1: that may be the log file.
    return int(os.environ.get('COLUMNS') or 0) or os.get_terminal_size(stream.fileno()).columns or 80


def print_line(text: str, stream: TextIO, hang: str = '    ') -> None:
    """Prints a text for a person: wrapped to the terminal, with paths relative to the working folder."""
    print(wrap_text(shorten_paths(text), measure_width(stream), hang), file=stream)


class _FirstOnly(logging.Filter):
    """Passes each message once. Beam repeats one warning 107 times in a run of the sample."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[str, int, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = (record.name, record.levelno, record.getMessage())
        is_new = message not in self._seen
        self._seen.add(message)
        return is_new


class _FirstLine(logging.Formatter):
    """Shows only the first line of notices. TFX logs whole protocol buffers, nine lines of ten in a run's log."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        first, *others = text.splitlines() or ['']
        if record.levelno > logging.INFO or not others:
            return text
        return f'{first} ... ({len(others)} more lines in the log file)'


def _make_log_handlers(log_file: Path, verbose_stream: TextIO | None) -> list[logging.Handler]:
    """Makes handlers for what the libraries log: all of it for the log file, a readable part for the terminal."""
    if verbose_stream is None:
        return [logging.StreamHandler(sys.stderr)]  # whose descriptor leads to the log file
    shown = logging.StreamHandler(verbose_stream)
    shown.addFilter(_FirstOnly())
    shown.setFormatter(_FirstLine(_LOG_FORMAT))
    return [shown, logging.FileHandler(log_file)]


def _flush_or_drop(stream: TextIO, descriptor: int) -> None:
    """Flushes a stream; drops what a full disk does not take, or it would come out on the terminal later."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), descriptor)
            stream.flush()


@contextlib.contextmanager
def _open_sink(log_file: Path, error: int, *, verbose: bool) -> Iterator[int]:
    """Gives a descriptor whose bytes end in the log file, and on the descriptor `error` too where `verbose` is set."""
    if not verbose:
        with log_file.open('a') as file:
            yield file.fileno()
        return
    # Its own session, so that Ctrl-C does not end it before it has shown how the run ended.
    command = ['tee', '-a', str(log_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=error, start_new_session=True) as tee:
        assert tee.stdin is not None
        yield tee.stdin.fileno()


@contextlib.contextmanager
def divert_chatter(log_file: Path = Path(os.devnull), *, verbose: bool) -> Iterator[TextIO]:
    """Sends file descriptors 1 and 2 to the log file, and gives a stream that still reaches standard output.

    Descriptors rather than `sys.stdout`, because most of the chatter comes from C++ and from other processes.

    Args:
      log_file: is appended to.
      verbose: shows the chatter on standard error as well: each message once, and of notices the first line.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved_out, saved_error = os.dup(1), os.dup(2)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, saved_out)
        stack.callback(os.close, saved_error)
        terminal = stack.enter_context(os.fdopen(os.dup(saved_out), 'w', buffering=1))
        shown = stack.enter_context(os.fdopen(os.dup(saved_error), 'w', buffering=1)) if verbose else None
        sink = stack.enter_context(_open_sink(log_file, saved_error, verbose=verbose))
        try:
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            handlers = _make_log_handlers(log_file, shown)
            logging.basicConfig(handlers=handlers, level=logging.INFO, format=_LOG_FORMAT)
            yield terminal
        finally:
            _flush_or_drop(sys.stdout, 1)
            _flush_or_drop(sys.stderr, 2)
            os.dup2(saved_out, 1)
            os.dup2(saved_error, 2)
