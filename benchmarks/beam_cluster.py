"""A Beam cluster on this machine: Prism as the engine, and workers that Beam's own `boot` starts.

Prism and `boot` are built from Beam's Go modules. With `isolated` both run in namespaces of their own, as on another
machine: no network but their own, an empty temp folder, everything else read-only, and one folder that is shared under
the same path. `benchmarks.engines` and the tests use it. Run as a program, this module passes connections on between
the two networks.
"""

import asyncio
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

_PROJECT = Path(__file__).parents[1]
_MODULES = ('go/cmd/prism', 'python/container')
_GO = ('go', '/usr/local/go/bin/go')
_UNSHARE = ('unshare', '--map-root-user', '--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc')
_START_S = 90.0
_PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ['PATH'], '/usr/sbin', '/sbin'))

# Arguments: the temp folder, the folders that stay visible in it (the last one is shared), --, the command.
_ENTER = """
set -eu
temp=$1; shift
number=10
kept=()
while [ "$1" != -- ]; do
  eval "exec $number<\\"\\$1\\""
  kept+=("$1"); number=$((number + 1)); shift
done
shift
mount -t tmpfs tmpfs "$temp"
mount -o remount,bind,ro /
number=10
for folder in "${kept[@]}"; do
  mkdir -p "$folder"
  mount --no-canonicalize --bind "/proc/self/fd/$number" "$folder"
  mount -o remount,bind,ro "$folder"
  number=$((number + 1))
done
mount -o remount,bind,rw "$folder"
ip link set lo up
exec "$@"
"""
# Arguments: Python, the script of a worker, the ports of the engine and the worker pool, the socket or nothing, Prism.
_SERVE = """
"$1" -m apache_beam.runners.worker.worker_pool_main --service_port="$4" ${2:+--container_executable="$2"} &
[ -z "$5" ] || "$1" -m benchmarks.beam_cluster "unix:$5" "tcp:$3" &
# Prism ends when a job asks for a worker before the pool is there.
until (: < "/dev/tcp/127.0.0.1/$4") 2>/dev/null; do sleep 0.2; done
exec "$6" --job_port="$3" --serve_http=false --log_level=warn
"""
_WORKER = """#!/bin/sh
cd "$(mktemp -d)"
exec {boot} --semi_persist_dir="$PWD" "$@"
"""


class Unavailable(Exception):
    """There can be no cluster on this machine; the message says what is missing."""


class Cluster(NamedTuple):
    """A running cluster."""

    args: list[str]
    """Beam's options for it."""
    log: Path
    """What the engine and its workers say."""


def build_binaries() -> tuple[Path, Path]:
    """Builds Prism and `boot`, of the version of Beam that is installed, and keeps them in the user's cache.

    Returns:
      The two files.

    Raises:
      Unavailable: there is no Go, or the modules cannot be had.
    """
    go = next(filter(None, map(shutil.which, _GO)), None)
    if not go:
        raise Unavailable('there is no Go, with which Prism and boot are built')
    version = metadata.version('apache-beam')
    folder = Path.home() / '.cache' / 'beam-binaries' / version
    files = tuple(folder / Path(module).name for module in _MODULES)
    if not all(file.exists() for file in files):
        packages = [f'github.com/apache/beam/sdks/v2/{module}@v{version}' for module in _MODULES]
        environment = {**os.environ, 'GOBIN': str(folder), 'CGO_ENABLED': '0', 'GOTOOLCHAIN': 'local'}
        answer = subprocess.run(
            [go, 'install', *packages], env=environment, capture_output=True, text=True, check=False
        )
        if answer.returncode:
            raise Unavailable(f'Go cannot build Prism and boot: {answer.stderr.strip().splitlines()[-1]}')
    return files[0], files[1]


def check_namespaces() -> None:
    """Checks that namespaces can be made. Raises Unavailable if not."""
    if not all(shutil.which(name, path=_PATH) for name in ('unshare', 'ip')):
        raise Unavailable('there are no unshare and ip, with which namespaces are made')
    probe = 'mount -t tmpfs tmpfs "$0" && mount -o remount,bind,ro / && ip link set lo up'
    answer = subprocess.run(
        [*_UNSHARE, 'sh', '-c', probe, tempfile.gettempdir()],
        env={'PATH': _PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise Unavailable(f'no namespace can be made: {answer.stderr.strip()}')


def _find_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as probe:
        return int(probe.getsockname()[1])


def _wait(port: int, server: 'subprocess.Popen[Any]', log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), timeout=1) as connection:
            connection.settimeout(1)
            if connection.recv(1):  # an HTTP/2 server speaks first; a relay without a server hangs up
                return
        time.sleep(0.2)
    raise RuntimeError(f'The Beam cluster did not start: {log.read_text()[-2000:]}')


@contextlib.contextmanager
def _start(command: list[str], log: Path) -> Iterator['subprocess.Popen[Any]']:
    environment = {
        **os.environ,
        'PATH': _PATH,
        'RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT': '1',
        'PYTHONDONTWRITEBYTECODE': '1',
    }
    environment.pop('PIPELINE_OPTIONS_FILE', None)  # the workers of a cluster have no such file
    with log.open('ab') as out:
        process = subprocess.Popen(
            command, cwd=_PROJECT, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


@contextlib.contextmanager
def start_cluster(shared: Path, *, isolated: bool, booted: bool = True) -> Iterator[Cluster]:
    """Starts the engine and a pool of workers, and stops them at the end.

    Args:
      shared: the folder that everything has in common; the cluster's log and socket are written there too.
      isolated: whether the cluster is in namespaces of its own.
      booted: whether `boot` starts the workers; if not, the stock worker pool does it alone.

    Raises:
      Unavailable: there is no Go, or no namespace.
    """
    prism, boot = build_binaries()
    log, worker, address = shared / 'cluster.log', shared / 'worker', shared / 'socket'
    worker.write_text(_WORKER.format(boot=boot))
    worker.chmod(0o755)
    port = _find_port()
    pool_port = _find_port()
    relayed = str(address) if isolated else ''
    serve = ['bash', '-c', _SERVE, 'serve', sys.executable, str(worker) if booted else '', str(port), str(pool_port)]
    command = [*serve, relayed, str(prism)]
    with contextlib.ExitStack() as stack:
        if isolated:
            check_namespaces()
            temp = tempfile.gettempdir()
            visible = [_PROJECT, Path(sys.prefix), Path(sys.base_prefix), prism.parent]
            kept = [str(folder) for folder in visible if folder.is_relative_to(temp)]
            command = [*_UNSHARE, 'bash', '-c', _ENTER, 'enter', temp, *kept, str(shared), '--', *command]
        server = stack.enter_context(_start(command, log))
        if isolated:
            relay = [sys.executable, '-m', 'benchmarks.beam_cluster', f'tcp:{port}', f'unix:{address}']
            stack.enter_context(_start(relay, log))
        _wait(port, server, log)
        yield Cluster(
            args=[
                '--runner=PrismRunner',
                f'--job_endpoint=localhost:{port}',
                '--environment_type=EXTERNAL',
                f'--environment_config=localhost:{pool_port}',
            ],
            log=log,
        )


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while content := await reader.read(1 << 16):
            writer.write(content)
            await writer.drain()
    writer.close()


async def _pass_on(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    kind, _, place = target.partition(':')
    try:
        connect = asyncio.open_unix_connection(place) if kind == 'unix' else asyncio.open_connection('127.0.0.1', place)
        far_reader, far_writer = await connect
    except OSError:
        writer.close()
        return
    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def relay(source: str, target: str) -> None:
    """Passes every connection to `source` on to `target`; each is `tcp:PORT` or `unix:FILE`."""
    kind, _, place = source.partition(':')
    answer = functools.partial(_pass_on, target)
    if kind == 'unix':
        server = await asyncio.start_unix_server(answer, place)
    else:
        server = await asyncio.start_server(answer, '127.0.0.1', int(place))
    await server.serve_forever()


if __name__ == '__main__':
    asyncio.run(relay(sys.argv[1], sys.argv[2]))
