"""The manifest of a data folder: what the folder holds, where its records come from, and what was asked for.

Called by `pipeline.data` and `components.data.tfrecords`. `check_splits` is also called before a run and by
ImportExampleGen, and `read_manifest` by the Pusher.
"""

import dataclasses
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from components import features
from components.contract import DataContract, parse_contract
from components.data import cifar10
from components.errors import DataError, UsageError
from components.places import Place, locate

MANIFEST_NAME = 'manifest.json'

Manifest = dict[str, Any]  # as in the JSON file: source, limit, tool_version, contract, counts, counts_by_class


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where records come from, as the manifest keeps it."""

    kind: str
    """'sample', 'archive', 'download', 'images' or 'csv'."""
    name: str
    """Of an archive its file name, without the folder, so that the manifest is the same on every machine; of a download
    its URL; of both, where the archive has two kinds of labels, also which; of a sample its seed; of one's own pictures
    the name of their folder or CSV file."""
    sha256: str
    """SHA-256 of the archive, of the sample's batch files one after the other, or of what
    `components.data.images.dataset.compute_digest` says; lower-case hex."""


def read_manifest(out: Place) -> Manifest | None:
    """Reads the manifest of a finished data folder; None when there is none.

    Raises:
      DataError: the file is not JSON.
    """
    path = out / MANIFEST_NAME
    if not path.exists():
        return None
    try:
        manifest: Manifest = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f'{path} is not JSON ({error}); remove {out} and write the data again.') from error
    return manifest


def read_contract(manifest: Manifest) -> DataContract:
    """Returns the class names and the image size of a data folder.

    A manifest that does not say them is CIFAR-10's, because it was written before there were others.
    """
    content = manifest.get('contract')
    return parse_contract(content) if content else cifar10.CONTRACT


def check_splits(data: str) -> None:
    """Checks that a data folder has files for every split.

    Args:
      data: path or URI of the folder.

    Raises:
      UsageError: a split's folder is missing or empty.
      StorageError: the object store cannot be read.
    """
    place = locate(data)
    for split in features.SPLITS:
        folder = place / split
        if not folder.is_dir() or not any(folder.iterdir()):
            raise UsageError(
                f'{folder} has no TFRecord files; --data takes a folder with {", ".join(features.SPLITS)} in it, '
                'as `python -m pipeline data --out DIR` writes it.'
            )


def describe_request(source: Source, limit: int | None) -> Manifest:
    """Makes the part of a manifest that says which data was asked for, and which version wrote it."""
    return {
        'source': dataclasses.asdict(source),
        'limit': limit,
        'tool_version': metadata.version('cifar10-pipeline'),
    }


def find_written(out: Path, source: Source, limit: int | None) -> Manifest | None:
    """Returns the manifest of `out` if it already holds exactly this data, written by this version; else None."""
    manifest, wanted = read_manifest(out), describe_request(source, limit)
    if manifest is not None and all(manifest.get(key) == value for key, value in wanted.items()):
        return manifest
    return None


def check_vacant(out: Path) -> None:
    """Checks that a data folder can be made at `out`.

    Raises:
      UsageError: `out` holds different data, or something that the `data` command did not write.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    manifest = read_manifest(out) if out.is_dir() else None
    if manifest is None:
        raise UsageError(f'{out} exists and was not written by this command; give a different --out, or remove it.')
    source = manifest.get('source') or {}
    raise UsageError(
        f'{out} already holds different data ({source.get("kind")} {source.get("name")}, '
        f'limit {manifest.get("limit")}, written by version {manifest.get("tool_version")}); '
        'give a different --out, or remove it.'
    )
