"""The `data` command: gets CIFAR-10's bytes from one of three sources and writes TFRecords, once."""

import shutil
import tempfile
from pathlib import Path
from typing import TextIO

from components.data import cifar10, download, sample
from components.data.download import OFFICIAL_ARCHIVE, compute_sha256
from components.data.manifest import Source, check_vacant, is_written, read_manifest
from components.data.tfrecords import write_dataset
from components.errors import DataError
from pipeline.config import BeamConfig, SampleConfig


def _describe_counts(manifest: dict) -> str:
    return ', '.join(f'{count:,} {split}' for split, count in manifest['counts'].items())


def _write(archive: Path, out: Path, source: Source, limit: int | None, beam: BeamConfig) -> str:
    if is_written(out, source, limit):
        return f'{_describe_counts(read_manifest(out))} already in {out}: nothing to do'
    check_vacant(out)
    manifest = write_dataset(cifar10.read_archive(archive), out, source, limit=limit, beam_args=beam.args)
    return f'{_describe_counts(manifest)} written to {out}'


def write_from_archive(archive: Path, out: Path, *, limit: int | None, beam: BeamConfig) -> str:
    """Writes a local archive's records as TFRecords; returns what it did in a sentence.

    Args:
      archive: in the official binary layout, with any number of records.
      out: folder to make.
      limit: records to keep, the same share of every batch; None for all.
      beam: how Beam runs.

    Raises:
      DataError: the archive is damaged, unsafe, or another kind.
      UsageError: `out` holds other data.
    """
    if not archive.is_file():
        raise DataError(f'{archive} is no file; --archive takes a cifar-10-binary.tar.gz.')
    source = Source(kind='archive', name=archive.name, sha256=compute_sha256(archive))
    return _write(archive, out, source, limit, beam)


def write_from_download(out: Path, *, limit: int | None, beam: BeamConfig, progress: TextIO) -> str:
    """The same from the official archive, which is kept beside `out` for the next time."""
    source = Source(kind='download', name=OFFICIAL_ARCHIVE.url, sha256=OFFICIAL_ARCHIVE.sha256)
    archive = out.parent / OFFICIAL_ARCHIVE.url.rpartition('/')[2]
    if not is_written(out, source, limit):
        check_vacant(out)
        download.download(OFFICIAL_ARCHIVE, archive, progress=progress)
    return _write(archive, out, source, limit, beam)


def write_from_sample(
    config: SampleConfig, out: Path, *, limit: int | None, beam: BeamConfig, replace: bool = False
) -> str:
    """The same from the embedded sample, drawn anew each time: equal settings give equal bytes.

    Args:
      config: how many images, and the seed.
      out, limit, beam: as above.
      replace: removes other data at `out`, where it is a run's own.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / 'sample.tar.gz'
        sample.write_sample_archive(archive, train=config.train, test=config.test, seed=config.seed)
        source = Source(kind='sample', name=f'seed {config.seed}', sha256=compute_sha256(archive))
        if replace and not is_written(out, source, limit):
            shutil.rmtree(out, ignore_errors=True)
        return _write(archive, out, source, limit, beam)
