"""The manifest of a data folder: what is in it, where it came from, and whether it is the data asked for."""

import dataclasses
import json
from importlib import metadata
from pathlib import Path

from components import features
from components.errors import DataError, UsageError
from components.places import Place, locate

MANIFEST_NAME = 'manifest.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where records come from, as the manifest keeps it."""

    kind: str
    """'sample', 'archive' or 'download'."""
    name: str
    """File name, or URL of a download; no folder, so that a manifest is the same on every machine."""
    sha256: str
    """Of the archive's bytes, lower-case hex."""


def read_manifest(out: Place) -> dict | None:
    """The manifest of a finished data folder; None where there is none."""
    path = out / MANIFEST_NAME
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f'{path} is not JSON ({error}); remove {out} and write the data again.') from error


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


def describe_request(source: Source, limit: int | None) -> dict:
    """The part of a manifest that says which data was asked for."""
    return {
        'source': dataclasses.asdict(source),
        'limit': limit,
        'tool_version': metadata.version('cifar10-pipeline'),
    }


def is_written(out: Path, source: Source, limit: int | None) -> bool:
    """Whether `out` already holds just this data, written by this version."""
    manifest, wanted = read_manifest(out), describe_request(source, limit)
    return manifest is not None and all(manifest.get(key) == value for key, value in wanted.items())


def check_vacant(out: Path) -> None:
    """Checks that a data folder can be made at `out`.

    Raises:
      UsageError: `out` holds other data, or something that is not ours.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    manifest = read_manifest(out) if out.is_dir() else None
    if manifest is None:
        raise UsageError(f'{out} exists and was not written by this command; give another --out or remove it.')
    source = manifest.get('source') or {}
    raise UsageError(
        f'{out} already holds other data ({source.get("kind")} {source.get("name")}, limit {manifest.get("limit")}, '
        f'written by version {manifest.get("tool_version")}); give another --out or remove it.'
    )
