"""Ctrl-C: a command ends within two seconds, with one sentence and the exit code that shells give to an interrupt.

Python raises KeyboardInterrupt only when its main thread gets back to Python code, and TensorFlow may stay in C++ for
longer; libraries catch the exception, or leave threads that the interpreter waits for. So a thread ends the process if
the command has not ended by itself in time. A run may be ended at any moment: the next one goes on where it was.
"""

import contextlib
import os
import signal
import socket
import threading
import types
from collections.abc import Callable, Iterator

EXIT_INTERRUPTED = 128 + signal.SIGINT
GRACE_S = 1.5  # for cleaning up temporary folders


class Interruption:
    """Whether the user has pressed Ctrl-C.

    Args:
      sentence: what to print then, once.
      grace_s: seconds that the command then has to end.
    """

    def __init__(self, sentence: str, grace_s: float):
        self.is_requested = False
        self.sentence = sentence
        self._grace_s = grace_s
        self.on_end: Callable[[], None] = lambda: None  # what is shown otherwise; called before the sentence is printed
        self._error = os.dup(2)  # while a run lasts, descriptor 2 is the log file
        self._lock = threading.Lock()
        self._is_told = False

    def handle(self, number: int, frame: types.FrameType | None) -> None:
        """Handles SIGINT as Python does, and remembers it: libraries make other errors of a KeyboardInterrupt."""
        self.is_requested = True
        signal.default_int_handler(number, frame)

    def close(self) -> None:
        """Gives back what an interrupt would have needed."""
        os.close(self._error)

    def mark_told(self) -> None:
        """Remembers that the user has been told how the command ended, so that the sentence is not printed."""
        with self._lock:
            self._is_told = True

    def print_sentence(self) -> None:
        """Prints the sentence on the standard error that the process was started with."""
        with self._lock:
            if not self._is_told:
                self._is_told = True
                self.on_end()
                with contextlib.suppress(OSError):  # the terminal may be gone
                    os.write(self._error, f'{self.sentence}\n'.encode())

    def watch(self, signals: socket.socket) -> None:
        """Waits for an interrupt, and ends the process some time after it, or at the next signal.

        Args:
          signals: gives the number of each signal as a byte, and ends when the command has ended.
        """
        while (number := signals.recv(1)) and number[0] != signal.SIGINT:
            pass
        if not number:
            signals.close()
            return
        signals.settimeout(self._grace_s)
        with contextlib.suppress(TimeoutError):
            signals.recv(1)
        self.print_sentence()
        os._exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def watch_interrupts(sentence: str, grace_s: float = GRACE_S) -> Iterator[Interruption]:
    """Watches for Ctrl-C as long as the context lasts, and after an interrupt until the process ends.

    Args:
      sentence: is printed on standard error when the process ends by an interrupt.
      grace_s: seconds after which it is ended, if it has not ended by itself.
    """
    interruption = Interruption(sentence, grace_s)
    if threading.current_thread() is not threading.main_thread():
        yield interruption  # signals can be watched only from the main thread
        interruption.close()
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    handler = signal.signal(signal.SIGINT, interruption.handle)
    wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=interruption.watch, args=(receiver,), daemon=True).start()
    try:
        yield interruption
    finally:
        if not interruption.is_requested:
            signal.set_wakeup_fd(wakeup)
            signal.signal(signal.SIGINT, handler)
            sender.close()
            interruption.close()
