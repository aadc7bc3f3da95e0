"""Places: folders by path or by the URI of an object store, with pathlib's methods for both (cloudpathlib).

An object store renames nothing and locks nothing, so what needs that asks `isinstance(place, Path)`.
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

if TYPE_CHECKING:
    from cloudpathlib import CloudPath

    Place = Path | CloudPath
else:
    Place = Path  # cloudpathlib takes half a second to import, and a path needs none of it

SCHEMES = ('s3://', 'gs://')
ENDPOINT_VARIABLE = 'AWS_ENDPOINT_URL'  # boto3's, for MinIO and other stores that speak S3


def check_place(text: str) -> str:
    """A path or a URI that `locate` takes.

    Raises:
      ValueError: a URI with another scheme, or without a bucket.
    """
    if '://' in text and not re.match(rf'({"|".join(SCHEMES)})[^/]', text):
        raise ValueError(
            f'must be a path, or a URI with {" or ".join(SCHEMES)} and a bucket (for MinIO s3://, with its address '
            f'in {ENDPOINT_VARIABLE}). Received: {text}'
        )
    return text


def locate(text: str) -> Place:
    """The place that a setting names.

    Args:
      text: a path, or the URI of a folder or file in an object store, whose credentials come from where boto3 and
        google-auth look for them, such as AWS_ACCESS_KEY_ID.

    Raises:
      UsageError: a URI with a scheme that is not known.
      StorageError: the store does not answer, lets nobody in, or has no such bucket.
    """
    if '://' not in text:
        return Path(text)
    try:
        check_place(text)
    except ValueError as error:
        raise UsageError(f'A folder {error}') from error

    from botocore.exceptions import BotoCoreError, ClientError
    from cloudpathlib import GSClient, S3Client
    from cloudpathlib.enums import FileCacheMode
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    make_client = S3Client if text.startswith('s3://') else GSClient
    try:
        place = make_client(file_cache_mode=FileCacheMode.close_file).CloudPath(text)
        place.exists()
    except (BotoCoreError, ClientError, GoogleAPIError, GoogleAuthError) as error:
        raise StorageError(
            f'{text} cannot be read: {to_one_line(error)}. Check bucket, credentials and, for s3://, '
            f'{ENDPOINT_VARIABLE} and AWS_DEFAULT_REGION.'
        ) from error
    return place


def copy_folder(source: Place, target: Path) -> None:
    """Copies a folder with all that is in it to this machine; `target` may exist."""
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
def fetch_folder(place: Place) -> Iterator[Path]:
    """The folder itself where it is on this machine, else a copy of it that lives as long as the context."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_folder(place, Path(folder))
        yield Path(folder)


def remove_folder(place: Place) -> None:
    """Removes a folder with all that is in it."""
    if isinstance(place, Path):
        shutil.rmtree(place)
    else:
        place.rmtree()
