"""The `data` command: gets CIFAR-10's batch files from one of three sources, and writes them once as TFRecords.

Called by the command line, and by `pipeline.local` for the embedded sample. Beam and TensorFlow, which take some 15
seconds to import, are imported only after every check that can do without them.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from components.data import cifar10, download, sample
from components.data.download import OFFICIAL_ARCHIVE, compute_sha256
from components.data.manifest import Manifest, Source, check_vacant, find_written
from components.errors import DataError, PipelineError
from components.staging import stage_folder
from pipeline.config import BeamConfig, SampleConfig
from pipeline.engines import explain_worker_failure
from pipeline.imports import BEAM_MODULES, track_imports


def describe_counts(manifest: Manifest) -> str:
    """Says how many records each split has: '80 train, 10 val, 10 test'."""
    return ', '.join(f'{count:,} {split}' for split, count in manifest['counts'].items())


def _describe_written(out: Path, source: Source, limit: int | None) -> str | None:
    """Says that `out` already holds this data; returns None when it is yet to be written there.

    Raises:
      UsageError: `out` holds something else.
    """
    manifest = find_written(out, source, limit)
    if manifest is None:
        check_vacant(out)
        return None
    return f'{describe_counts(manifest)} already in {out}: nothing to do'


def _write(batches: Sequence[cifar10.BatchFile], out: Path, source: Source, limit: int | None, beam: BeamConfig) -> str:
    with track_imports(BEAM_MODULES):
        from components.data.tfrecords import write_dataset  # imports Beam and TensorFlow

    try:
        manifest = write_dataset(batches, out, source, limit=limit, beam_args=beam.options)
    except PipelineError:
        raise
    except Exception as error:  # Beam wraps what a worker raised in errors of any type
        raise explain_worker_failure(error, beam.args) or error from error
    return f'{describe_counts(manifest)} written to {out}'


def _extract_and_write(archive: Path, out: Path, source: Source, limit: int | None, beam: BeamConfig) -> str:
    """Extracts the batch files beside `out`, on a disk that must have room for the data, and writes them."""
    with stage_folder(out.with_name(f'{out.name}.batches')) as folder:
        return _write(cifar10.extract_batches(archive, folder), out, source, limit, beam)


def write_from_archive(archive: Path, out: Path, *, limit: int | None, beam: BeamConfig) -> str:
    """Writes a local archive's records as TFRecords.

    Args:
      archive: in the official binary layout, with any number of records.
      out: folder to make.
      limit: records to keep, the same share of every batch; None for all.
      beam: how Beam runs.

    Returns:
      A sentence that says what was done.

    Raises:
      DataError: the archive is missing, damaged, unsafe, or of a different kind.
      UsageError: `out` holds something else.
    """
    if not archive.is_file():
        raise DataError(f'{archive} is not a file; --archive takes a cifar-10-binary.tar.gz.')
    source = Source(kind='archive', name=archive.name, sha256=compute_sha256(archive))
    return _describe_written(out, source, limit) or _extract_and_write(archive, out, source, limit, beam)


def write_from_download(out: Path, *, limit: int | None, beam: BeamConfig) -> str:
    """Downloads the official archive, which is kept beside `out` for the next time, and writes it as TFRecords.

    Args:
      out, limit, beam: see `write_from_archive`.

    Returns:
      A sentence that says what was done.

    Raises:
      DataError: the download failed.
      UsageError: `out` holds something else.
    """
    source = Source(kind='download', name=OFFICIAL_ARCHIVE.url, sha256=OFFICIAL_ARCHIVE.sha256)
    note = _describe_written(out, source, limit)
    if note:
        return note
    archive = out.parent / OFFICIAL_ARCHIVE.url.rpartition('/')[2]
    download.download(OFFICIAL_ARCHIVE, archive)
    return _extract_and_write(archive, out, source, limit, beam)


def write_from_sample(
    config: SampleConfig, out: Path, *, limit: int | None, beam: BeamConfig, replace: bool = False
) -> str:
    """Draws the embedded sample and writes it as TFRecords; equal settings give equal records.

    Args:
      config: how many images, and the seed.
      out, limit, beam: see `write_from_archive`.
      replace: whether to remove different data from `out`, as a run does in its own folder.

    Returns:
      A sentence that says what was done.

    Raises:
      UsageError: `out` holds something else, and `replace` is not set.
    """
    with stage_folder(out.with_name(f'{out.name}.batches')) as folder:  # which Beam's workers can read
        batches = sample.write_sample(folder, train=config.train, test=config.test, seed=config.seed)
        digest = compute_sha256(*(batch.path for batch in batches))
        source = Source(kind='sample', name=f'seed {config.seed}', sha256=digest)
        if replace and not find_written(out, source, limit):
            shutil.rmtree(out, ignore_errors=True)
        return _describe_written(out, source, limit) or _write(batches, out, source, limit, beam)
