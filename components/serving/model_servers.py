"""TensorFlow Serving on this machine: the program on PATH, or Docker's image. The serving check and `serve` use it."""

import shutil
import subprocess
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

BINARY = 'tensorflow_model_server'
IMAGE = 'tensorflow/serving:2.20.0'  # by tag: no source that can be cited has the digest
_INSPECT_TIMEOUT_S = 20.0


class ModelServer(NamedTuple):
    """How to start a server."""

    name: str
    """As it is shown to people."""
    make_command: Callable[[Sequence[int], Sequence[Path]], list[str]]
    """Takes the ports that the server will listen on, and the absolute folders that it will read; returns the command
    that the server's flags follow."""
    cleanup: tuple[str, ...] = ()
    """The command that removes what a killed server leaves behind; empty if it leaves nothing."""

    def stop(self, process: subprocess.Popen[bytes], timeout_s: float) -> None:
        """Ends the server's process, kills it if it has not ended after `timeout_s` seconds, and cleans up."""
        process.terminate()  # does nothing if it has ended
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self.cleanup:
            subprocess.run(self.cleanup, capture_output=True, check=False)


def find_binary() -> ModelServer | None:
    """Finds TensorFlow Serving's program on PATH; returns None if it is not there."""
    binary = shutil.which(BINARY)
    return ModelServer(BINARY, lambda *_: [binary]) if binary else None


def find_docker_image() -> ModelServer | None:
    """Finds TensorFlow Serving's image in Docker; returns None if it was not pulled, or if Docker does not answer.

    An image is never pulled, because nobody expects a download here. The server sees its folders under the same paths
    as this machine, read-only, and its ports are open to this machine only.
    """
    docker = shutil.which('docker')
    if not docker:
        return None
    inspect = [docker, 'image', 'inspect', IMAGE]
    try:
        inspected = subprocess.run(inspect, capture_output=True, timeout=_INSPECT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    if inspected.returncode:
        return None
    container = f'tensorflow-serving-{uuid.uuid4().hex[:12]}'

    def make_command(ports: Sequence[int], folders: Sequence[Path]) -> list[str]:
        options = ['--rm', '--init', '--pull=never', f'--name={container}', f'--entrypoint={BINARY}']
        options += [f'--publish=127.0.0.1:{port}:{port}' for port in ports]
        options += [f'--volume={folder}:{folder}:ro' for folder in folders]
        return [docker, 'run', *options, IMAGE]

    return ModelServer(f'Docker image {IMAGE}', make_command, (docker, 'rm', '--force', container))


def find_model_server() -> ModelServer | None:
    """Finds the program on PATH, else Docker's image; returns None if there is neither."""
    return find_binary() or find_docker_image()
