"""The `serve` command: starts a server for a serving folder with the files that it needs, and stays until it ends.

The server is TensorFlow Serving where it can be found, else the small server of this project, which has the same
routes and takes the same flags. While it runs, this process keeps the server's models.config like that of the serving
folder, so that `promote` and `rollback` take effect also where there was no models.config when the server was started,
and where that file names the folder by the path that a container sees.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Literal, NoReturn

from components.errors import PipelineError, UsageError
from components.places import Place
from components.serving.model_servers import BINARY, IMAGE, ModelServer, find_binary, find_docker_image
from components.serving.models_config import MODEL_NAME, check_folder
from components.serving.server_files import choose_batching, write_files, write_models
from components.serving.versions import find_serving_version, read_info
from pipeline.console import print_line

Engine = Literal['tensorflow-serving', 'docker', 'small']
STOP_S = 12.0  # for a server to answer the requests that it has, before it is killed
_SMALL = 'the small server of this project, which is not TensorFlow Serving,'
_POLL_S = 1.0  # how often the serving folder's models.config is read


class _Stopped(Exception):
    """Somebody has asked this process to end, with SIGTERM or SIGHUP."""


def choose_server(engine: Engine | None) -> ModelServer:
    """Finds the server to start: TensorFlow Serving on PATH, else in Docker, else the small one.

    Args:
      engine: the one to start; None for the first that is there.

    Raises:
      UsageError: the one that is asked for is not there.
    """
    if engine in (None, 'tensorflow-serving') and (binary := find_binary()):
        return binary
    if engine in (None, 'docker') and (image := find_docker_image()):
        return image
    if engine == 'tensorflow-serving':
        raise UsageError(f'{BINARY} is not on PATH; install TensorFlow Serving, or leave --engine out.')
    if engine == 'docker':
        raise UsageError(
            f'Docker has no image {IMAGE} here, or does not answer; run `docker pull {IMAGE}`, or leave --engine out.'
        )
    return ModelServer(_SMALL, lambda *_: [sys.executable, '-u', '-m', 'pipeline.server'])


def _check_ports(ports: tuple[int, int]) -> None:
    """Checks that nobody listens on the ports.

    Raises:
      UsageError: a port is taken, is none, or both are the same.
    """
    if ports[0] == ports[1]:
        raise UsageError(f'--port and --rest-port take two different ports. Received: {ports[0]} twice')
    for flag, port in zip(('--port', '--rest-port'), ports, strict=True):
        if not 0 < port < 65536:
            raise UsageError(f'{flag} takes a port from 1 to 65535. Received: {port}')
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that has ended takes no port
            try:
                probe.bind(('127.0.0.1', port))
            except OSError as error:
                raise UsageError(
                    f'Port {port} cannot be used ({error.strerror}); end what listens there, or choose a different '
                    f'one with {flag}.'
                ) from error


def _find_version(serving: Place) -> Path:
    """Returns the version whose latencies are used.

    Raises:
      UsageError: the folder is not on this machine, does not exist, or has no version.
    """
    if not isinstance(serving, Path):
        raise UsageError(f'serve takes a folder of this machine; copy {serving} to one first, or mount it.')
    check_folder(serving)
    version = find_serving_version(serving)
    if not isinstance(version, Path):
        raise UsageError(f'{serving} has no version yet; `python -m pipeline run` pushes one.')
    return version


class _Output:
    """Passes on what a process prints, and remembers its last words.

    Args:
      source: the process's output; is closed when it ends.
    """

    def __init__(self, source: IO[bytes]):
        self._last = b''
        self._thread = threading.Thread(target=self._copy, args=(source,), daemon=True)
        self._thread.start()

    def _copy(self, source: IO[bytes]) -> None:
        with source:
            for line in source:
                with contextlib.suppress(OSError):  # the reader has left, but the server goes on
                    os.write(2, line)
                self._last = line.strip() or self._last

    def wait(self) -> str:
        """Waits for the end, and returns the last line that was not empty."""
        self._thread.join(timeout=5)  # a child of the process may hold the pipe open for longer
        return self._last.decode(errors='replace')[:300]


def _raise_stopped(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped


@contextlib.contextmanager
def _catch_stops() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise _Stopped, as Ctrl-C raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals can be handled only in the main thread
        return
    before = {number: signal.signal(number, _raise_stopped) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _run_server(command: list[str], server: ModelServer) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a server, and stops it in the end: it may answer what it has been asked, and is killed after STOP_S.

    The server is in a process group of its own, so that Ctrl-C on a terminal reaches it only once, from here.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    )
    try:
        yield process
    finally:
        server.stop(process, STOP_S)


def _follow_models(process: subprocess.Popen[bytes], files: Path, serving: Path) -> None:
    """Keeps the server's models.config like that of the serving folder until the server ends."""
    told = ''
    while True:
        try:
            write_models(files, serving)
        except PipelineError as error:  # somebody edits the file; the server goes on with what it has read before
            if str(error) != told:
                told = str(error)
                print_line(f'warning: {error}', sys.stderr)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
            return


def _describe_end(name: str, code: int, words: str) -> str:
    how = f'was ended by {signal.Signals(-code).name}' if code < 0 else f'ended with code {code}'
    return f'{name} {how}: {words or "it said nothing"}'


def serve(serving: Place, ports: tuple[int, int], engine: Engine | None, requests: str | None = None) -> int:
    """Serves a folder of versions until the server ends or somebody ends this process.

    Args:
      serving: the folder of versions.
      ports: for gRPC and for REST.
      engine: which server to start; None for the first that is there.
      requests: folder for the small server's request sample; None for none.

    Returns:
      0, after SIGTERM or SIGHUP.

    Raises:
      UsageError: there is no version, no such server, or a port is taken; or requests are to be sampled, and the
        server is not the small one.
      PipelineError: the server ended by itself.
    """
    version = _find_version(serving)
    folder = version.parent.absolute()
    _check_ports(ports)
    server = choose_server(engine)
    if requests and server.name != _SMALL:
        raise UsageError(
            f'--requests needs --engine small: {server.name} keeps no sample of requests (docs/drift.md says more).'
        )
    batching = choose_batching(read_info(version).get('batch_ms') or {}, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix='serve-') as name:
        files = Path(name)
        flags = [f'--port={ports[0]}', f'--rest_api_port={ports[1]}', *write_files(files, folder, batching)]
        flags += [f'--requests={requests}'] if requests else []
        print_line(
            f'started {server.name} for {serving}\n'
            f'REST http://localhost:{ports[1]}/v1/models/{MODEL_NAME}, gRPC localhost:{ports[0]}; Ctrl-C stops it\n'
            f'version {version.name}: {batching.to_sentence()}',
            sys.stdout,
        )
        sys.stdout.flush()
        command = [*server.make_command(ports, (folder, files)), *flags]
        try:
            with _catch_stops(), _run_server(command, server) as process:
                assert process.stdout is not None
                output = _Output(process.stdout)
                _follow_models(process, files, folder)
        except _Stopped:
            return 0
        raise PipelineError(_describe_end(server.name, process.returncode, output.wait()))
