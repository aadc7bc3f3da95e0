"""Places: folders and files on this machine or in an object store, with pathlib's methods for both (cloudpathlib).

An object store can neither rename nor lock, so code that needs to do so first checks `isinstance(place, Path)`.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import StorageError, UsageError, to_one_line
from components.staging import write_text

if TYPE_CHECKING:
    from cloudpathlib import CloudPath

    Place = Path | CloudPath
else:
    Place = Path  # cloudpathlib takes half a second to import, and a path does not need it

SCHEMES = ('s3://', 'gs://')
ENDPOINT_VARIABLE = (
    'AWS_ENDPOINT_URL'  # boto3 reads it: the address of MinIO, or a different store with the S3 protocol
)


def check_place(text: str) -> str:
    """Checks that `locate` can take a path or URI, and returns it.

    Raises:
      ValueError: the URI has an unknown scheme, or no bucket.
    """
    if '://' in text and not re.match(rf'({"|".join(SCHEMES)})[^/]', text):
        raise ValueError(
            f'must be a path, or a URI with {" or ".join(SCHEMES)} and a bucket (for MinIO s3://, with its address '
            f'in {ENDPOINT_VARIABLE}). Received: {text}'
        )
    return text


def locate(text: str) -> Place:
    """Turns a path or URI into a place, and checks that its object store can be used.

    Args:
      text: a path, or the URI of a folder or file in an object store. boto3 and google-auth find the credentials in
        their usual places, such as AWS_ACCESS_KEY_ID.

    Raises:
      UsageError: the URI has an unknown scheme, or no bucket.
      StorageError: the store does not respond, refuses the credentials, or has no such bucket.
    """
    if '://' not in text:
        return Path(text)
    try:
        check_place(text)
    except ValueError as error:
        raise UsageError(f'A folder {error}') from error

    from cloudpathlib import GSClient, S3Client
    from cloudpathlib.enums import FileCacheMode

    make_client = S3Client if text.startswith('s3://') else GSClient
    with explain_errors(text):
        place: Place = make_client(file_cache_mode=FileCacheMode.close_file).CloudPath(text)
        place.exists()
    return place


@contextlib.contextmanager
def explain_errors(place: Place | str) -> Iterator[None]:
    """Turns the errors of an object store, which its clients have retried, into one sentence.

    Args:
      place: what is read or written; nothing is done for a path on this machine.

    Raises:
      StorageError: the store does not respond, refuses the credentials, or has no such bucket.
    """
    if isinstance(place, Path):
        yield
        return
    from botocore.exceptions import BotoCoreError, ClientError
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (BotoCoreError, ClientError, GoogleAPIError, GoogleAuthError) as error:
        raise StorageError(
            f'{place} cannot be used: {to_one_line(error)}. Check bucket, credentials and, for s3://, '
            f'{ENDPOINT_VARIABLE} and AWS_DEFAULT_REGION.'
        ) from error


def copy_folder(source: Place, target: Path) -> None:
    """Copies a folder and everything in it to this machine; `target` may exist."""
    if isinstance(source, Path):
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        target.mkdir(parents=True, exist_ok=True)
        source.download_to(target)


def link_or_copy_folder(source: Place, target: Path) -> None:
    """Copies a folder as `copy_folder` does, but with hard links, which take no space, where they are possible.

    A file that is linked has two names. It must never be opened for writing under either: replace it instead.
    """

    def link_or_copy(file: str, to: str) -> str:
        Path(to).unlink(missing_ok=True)
        try:
            os.link(os.path.realpath(file), to)
        except OSError:  # different file systems, one without hard links, or a file of a different user
            shutil.copy2(file, to)
        return to

    if isinstance(source, Path):
        shutil.copytree(source, target, copy_function=link_or_copy, dirs_exist_ok=True)
    else:
        copy_folder(source, target)


@contextlib.contextmanager
def fetch(place: Place) -> Iterator[Path]:
    """Gives a folder or a file itself if it is on this machine, else a copy that is removed when the context ends."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(place.download_to(Path(folder) / place.name))


def write_place(place: Place, text: str) -> None:
    """Writes a text file, or replaces it, whole or not at all.

    Raises:
      OSError: a file of this machine cannot be written; what was there before is still there.
    """
    if isinstance(place, Path):
        write_text(place, text)
    else:  # an object store shows an object only once it is written completely
        with place.open('w', force_overwrite_to_cloud=True) as file:
            file.write(text)


def remove_folder(place: Place) -> None:
    """Removes a folder and everything in it."""
    if isinstance(place, Path):
        shutil.rmtree(place)
    else:
        place.rmtree()
