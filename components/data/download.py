"""Downloads one file over HTTP: resumes a broken download, retries, verifies, and only then moves the file into place.

Called by `pipeline.data` for the official archives.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import requests

from components.errors import DataError
from components.progress import track

_CHUNK_BYTES = 1024**2
_TIMEOUT_S = 30.0  # to connect, and between two chunks
_ATTEMPTS = 5


class RemoteFile(NamedTuple):
    """A file on a server, and what its bytes must be."""

    url: str
    """Its address."""
    size_bytes: int
    """Its length."""
    digest: str
    """The digest of its bytes, lower-case hex."""
    algorithm: Literal['sha256', 'md5'] = 'sha256'
    """Of the digest. An MD5 shows damage; it does not keep out somebody who makes a file on purpose."""


# https://www.cs.toronto.edu/~kriz/cifar.html, the binary versions.
OFFICIAL_ARCHIVES = {
    'cifar10': RemoteFile(
        url='https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
        size_bytes=170_052_171,
        digest='c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
    ),
    'cifar100': RemoteFile(
        url='https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz',
        size_bytes=169_001_437,
        digest='03b5dce01913d631647c71ecec9e9cb8',
        algorithm='md5',
    ),
}


def compute_sha256(*paths: Path) -> str:
    """Computes the SHA-256 of the bytes of one or more files, one after the other: lower-case hex."""
    return _compute_digest(paths, 'sha256')


def _compute_digest(paths: Sequence[Path], algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    for path in paths:
        with path.open('rb') as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _is_expected(remote: RemoteFile, file: Path) -> bool:
    return file.stat().st_size == remote.size_bytes and _compute_digest([file], remote.algorithm) == remote.digest


def _append_body(remote: RemoteFile, partial: Path) -> None:
    """Requests what `partial` still lacks and appends it; starts over when the server cannot resume."""
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
            track('download', remote.size_bytes, 'bytes', done=start) as advance,
        ):
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                advance(len(chunk))
                if file.tell() > remote.size_bytes:
                    return  # too long to be the expected file, and _verify will say so


def _is_final(error: requests.RequestException) -> bool:
    """Whether a retry cannot help: a 4xx response, except 408 and 429."""
    status = error.response.status_code if error.response is not None else 0
    return 400 <= status < 500 and status not in (requests.codes.request_timeout, requests.codes.too_many_requests)


def download(remote: RemoteFile, target: Path, *, pause_s: float = 2.0) -> Path:
    """Downloads `remote` to `target`, which appears only when it is complete and verified.

    The bytes that came before a break stay in `<target>.partial`, and the next call resumes from there.

    Args:
      remote: where the bytes are and what they must be.
      target: where they go; a file that is there already is kept if it verifies.
      pause_s: seconds before the second attempt; doubled before each later one.

    Returns:
      `target`.

    Raises:
      DataError: the server cannot be reached or refuses the request, the bytes are not the expected ones, or they
        cannot be written.
    """
    if target.exists() and _is_expected(remote, target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + '.partial')
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _append_body(remote, partial)
        except requests.RequestException as error:
            if attempt == _ATTEMPTS or _is_final(error):
                raise DataError(
                    f'{remote.url} could not be downloaded ({error}; attempt {attempt} of {_ATTEMPTS}); run the '
                    'command again to resume it, or fetch the file yourself and give it with --archive.'
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
    """Checks size and digest; removes a file that can never become the expected one."""
    size = partial.stat().st_size
    if size < remote.size_bytes:
        raise DataError(
            f'{remote.url} ended after {size:,} of {remote.size_bytes:,} bytes, {_ATTEMPTS} times; '
            'run the command again to resume it.'
        )
    if not _is_expected(remote, partial):
        digest, name = _compute_digest([partial], remote.algorithm), remote.algorithm.upper()
        partial.unlink()
        raise DataError(
            f'{remote.url} is not the expected file: {size:,} bytes with {name} {digest}, expected '
            f'{remote.size_bytes:,} bytes with {name} {remote.digest}; it was deleted.'
        )
