"""The `data` command: gets batch files from one of three sources, and writes them once as TFRecords.

Called by the command line, and by `pipeline.local` for the embedded sample. Beam and TensorFlow, which take some 15
seconds to import, are imported only after every check that can do without them.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from components.contract import DataContract
from components.data import cifar10, cifar100, download, sample
from components.data.archive import Format, find_format
from components.data.cifar10 import BatchFile
from components.data.cifar100 import LABELS, Labels
from components.data.download import OFFICIAL_ARCHIVES, compute_sha256
from components.data.manifest import Manifest, Source, check_vacant, find_written, read_manifest
from components.errors import DataError, PipelineError, UsageError
from components.staging import stage_folder
from pipeline.config import BeamConfig, SampleConfig
from pipeline.engines import explain_worker_failure
from pipeline.imports import BEAM_MODULES, track_imports

_FORMATS = {'cifar10': cifar10.FORMAT, 'cifar100': cifar100.FORMAT}


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


def _write(
    batches: Sequence[BatchFile], contract: DataContract, out: Path, source: Source, limit: int | None, beam: BeamConfig
) -> str:
    with track_imports(BEAM_MODULES):
        from components.data.tfrecords import write_dataset  # imports Beam and TensorFlow

    try:
        manifest = write_dataset(batches, out, source, limit=limit, beam_args=beam.options, contract=contract)
    except PipelineError:
        raise
    except Exception as error:  # Beam wraps what a worker raised in errors of any type
        explained = explain_worker_failure(error, beam.args)
        if explained is None:
            raise
        raise explained from error
    return f'{describe_counts(manifest)} written to {out}'


def _extract(archive: Path, folder: Path, labels: Labels | None) -> tuple[list[BatchFile], DataContract]:
    """Extracts the batch files of CIFAR-10, or with `labels` of CIFAR-100."""
    if labels:
        return cifar100.extract_batches(archive, folder, labels)
    return cifar10.extract_batches(archive, folder), cifar10.CONTRACT


def _extract_and_write(
    archive: Path, labels: Labels | None, out: Path, source: Source, limit: int | None, beam: BeamConfig
) -> str:
    """Extracts the batch files beside `out`, on a disk that must have room for the data, and writes them."""
    with stage_folder(out.with_name(f'{out.name}.batches')) as folder:
        batches, contract = _extract(archive, folder, labels)
        return _write(batches, contract, out, source, limit, beam)


def _name_source(name: str, labels: Labels | None) -> str:
    return f'{name}, {labels} labels' if labels else name


def _choose_labels(labels: Labels | None, form: Format, name: str) -> Labels | None:
    """Returns which of CIFAR-100's labels to write; None for data that has one kind of labels."""
    if form == cifar100.FORMAT:
        return labels or LABELS[0]
    if labels:
        raise UsageError(f'--labels chooses between the labels of CIFAR-100, and {name} is {form.title}; leave it out.')
    return None


def write_from_archive(
    archive: Path, out: Path, *, limit: int | None, beam: BeamConfig, labels: Labels | None = None
) -> str:
    """Writes a local archive's records as TFRecords.

    Args:
      archive: of CIFAR-10 or CIFAR-100 in the official binary layout, with any number of records.
      out: folder to make.
      limit: records to keep, the same share of every batch; None for all.
      beam: how Beam runs.
      labels: which of CIFAR-100's labels to write; None for the fine ones. CIFAR-10 has one kind of labels.

    Returns:
      A sentence that says what was done.

    Raises:
      DataError: the archive is missing, damaged, unsafe, or of a different kind.
      UsageError: `out` holds something else, or `labels` is given for CIFAR-10.
    """
    needed = ' or a '.join(form.archive for form in _FORMATS.values())
    if not archive.is_file():
        raise DataError(f'{archive} is not a file; --archive takes a {needed}.')
    labels = _choose_labels(labels, find_format(archive, tuple(_FORMATS.values())), archive.name)
    source = Source(kind='archive', name=_name_source(archive.name, labels), sha256=compute_sha256(archive))
    return _describe_written(out, source, limit) or _extract_and_write(archive, labels, out, source, limit, beam)


def write_from_download(
    name: str, out: Path, *, limit: int | None, beam: BeamConfig, labels: Labels | None = None
) -> str:
    """Downloads an official archive, which is kept beside `out` for the next time, and writes it as TFRecords.

    Args:
      name: a key of `OFFICIAL_ARCHIVES`.
      out, limit, beam, labels: see `write_from_archive`.

    Returns:
      A sentence that says what was done.

    Raises:
      DataError: the download failed.
      UsageError: `out` holds something else, or `labels` is given for CIFAR-10.
    """
    remote, labels = OFFICIAL_ARCHIVES[name], _choose_labels(labels, _FORMATS[name], name)
    archive, is_known = out.parent / remote.url.rpartition('/')[2], remote.algorithm == 'sha256'
    if not is_known:  # the manifest has a SHA-256, which is computed from the file
        if read_manifest(out) is None:
            check_vacant(out)  # before the download
        download.download(remote, archive)
    sha256 = remote.digest if is_known else compute_sha256(archive)
    source = Source(kind='download', name=_name_source(remote.url, labels), sha256=sha256)
    note = _describe_written(out, source, limit)
    if note:
        return note
    download.download(remote, archive)
    return _extract_and_write(archive, labels, out, source, limit, beam)


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
        return _describe_written(out, source, limit) or _write(batches, cifar10.CONTRACT, out, source, limit, beam)
