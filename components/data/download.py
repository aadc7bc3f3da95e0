"""Fetches one file over HTTP: resumed when broken off, retried, verified, and moved into place whole.

Called by `components.data.tfrecords` for the official archive.
"""

import hashlib
import time
from pathlib import Path
from typing import NamedTuple, TextIO

import requests
from tqdm import tqdm

from components.errors import DataError

_CHUNK_BYTES = 1024**2
_TIMEOUT_S = 30.0  # to connect, and between two chunks
_ATTEMPTS = 5


class RemoteFile(NamedTuple):
    """A file and what its bytes must be. size_bytes: its length; sha256: lower-case hex."""

    url: str
    size_bytes: int
    sha256: str


# https://www.cs.toronto.edu/~kriz/cifar.html, "CIFAR-10 binary version".
OFFICIAL_ARCHIVE = RemoteFile(
    url='https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
    size_bytes=170_052_171,
    sha256='c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
)


def compute_sha256(path: Path) -> str:
    """SHA-256 of a file, lower-case hex."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _append_body(remote: RemoteFile, partial: Path, progress: TextIO | None) -> None:
    """Asks for what `partial` still lacks and appends it; starts over when the server cannot resume."""
    have = partial.stat().st_size if partial.exists() else 0
    if have > remote.size_bytes:
        partial.unlink()
        have = 0
    if have == remote.size_bytes:
        return
    headers = {'Range': f'bytes={have}-'} if have else {}
    with requests.get(remote.url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        start = have if resumed else 0
        with (
            partial.open('ab' if resumed else 'wb') as file,
            tqdm(
                total=remote.size_bytes,
                initial=start,
                unit='B',
                unit_scale=True,
                desc=partial.stem,
                file=progress,
                disable=None,
            ) as bar,
        ):
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > remote.size_bytes:
                    return  # not the file we asked for: the size check of the caller says so


def _is_final(error: requests.RequestException) -> bool:
    """A 4xx answer stays the same however often it is asked for, except 408 and 429."""
    status = error.response.status_code if error.response is not None else 0
    return 400 <= status < 500 and status not in (requests.codes.request_timeout, requests.codes.too_many_requests)


def download(remote: RemoteFile, target: Path, *, progress: TextIO | None = None, pause_s: float = 2.0) -> Path:
    """Fetches `remote` to `target`, which appears only whole and verified.

    What was fetched before a break stays in `<target>.partial`, and the next call goes on from there.

    Args:
      remote: where the bytes are and what they must be.
      target: where they go; a file that is there already and verifies is kept.
      progress: where the progress bar goes when it is a terminal; standard error by default.
      pause_s: seconds before the second attempt; doubled before each further one.

    Raises:
      DataError: the server cannot be reached or refuses, or the bytes are not the expected ones.
    """
    if target.exists() and target.stat().st_size == remote.size_bytes and compute_sha256(target) == remote.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + '.partial')
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _append_body(remote, partial, progress)
        except requests.RequestException as error:
            if attempt == _ATTEMPTS or _is_final(error):
                raise DataError(
                    f'{remote.url} could not be downloaded ({error}; attempt {attempt} of {_ATTEMPTS}); run the '
                    'command again to go on where it stopped, or fetch the file yourself and give it with --archive.'
                ) from error
        except OSError as error:
            raise DataError(f'{partial} could not be written: {error}; free some space and run again.') from error
        if partial.exists() and partial.stat().st_size >= remote.size_bytes:
            break
        time.sleep(pause_s * 2 ** (attempt - 1))
    _verify(remote, partial)
    partial.replace(target)
    return target


def _verify(remote: RemoteFile, partial: Path) -> None:
    size = partial.stat().st_size
    if size < remote.size_bytes:
        raise DataError(
            f'{remote.url} ended after {size:,} of {remote.size_bytes:,} bytes, {_ATTEMPTS} times; '
            'run the command again to go on where it stopped.'
        )
    digest = compute_sha256(partial)
    if size > remote.size_bytes or digest != remote.sha256:
        partial.unlink()
        raise DataError(
            f'{remote.url} is not the expected file: {size:,} bytes with SHA-256 {digest}, expected '
            f'{remote.size_bytes:,} bytes with SHA-256 {remote.sha256}; it was deleted.'
        )
