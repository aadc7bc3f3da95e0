"""Reads what a server was asked: our request sample, or TensorFlow Serving's PredictionLogs in TFRecord files."""

import collections
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from components.errors import UsageError, to_one_line
from components.progress import track
from pipeline.imports import TENSORFLOW_MODULES, track_imports
from pipeline.server.request_sample import (
    SAMPLE_SIZE,
    AskedImage,
    Row,
    choose_slot,
    describe_rows,
    list_rows,
    parse_line,
)

_SUFFIX = '.jsonl'  # of the days of a request sample; every other file is taken for TFRecords
_BATCH = 64
_MAX_FAULTS = 5  # sentences


class RequestLog(NamedTuple):
    """What a log holds about one version."""

    images: list[AskedImage]
    """Those that the version answered; a seeded sample of at most SAMPLE_SIZE of those in TFRecords."""
    counts: dict[int | None, int]
    """How many images were read by version; None stands for those that do not say which version answered."""
    faults: list[str]
    """A sentence for each damaged place, and for what could not be used."""


def find_files(requests: str) -> list[Path]:
    """Finds the files of a log.

    Args:
      requests: the folder of a request sample, a file, or a glob of files.

    Raises:
      UsageError: there is no such file.
    """
    folder = Path(requests)
    files = sorted(folder.glob(f'*{_SUFFIX}') if folder.is_dir() else map(Path, glob.glob(requests)))
    if not files:
        what = f'has no {_SUFFIX} file, so it is not a request sample' if folder.is_dir() else 'matches no file'
        raise UsageError(
            f'--requests {requests} {what}; give the folder that the server was given as --requests, or a quoted glob '
            'of TFRecord files of PredictionLogs.'
        )
    return files


def read_log(requests: str, version: int, image_size: int) -> RequestLog:
    """Reads what a version was asked; damaged lines and records are left out and named.

    Args:
      requests: as `find_files` takes it.
      version: number of the version.
      image_size: of its contract.

    Raises:
      UsageError: there is no such file, or it cannot be read.
    """
    log = RequestLog([], collections.Counter(), [])
    files = find_files(requests)
    logs = [file for file in files if file.suffix != _SUFFIX]
    for file in files:
        if file.suffix == _SUFFIX:
            _read_sample(file, version, log)
    if logs:
        _read_prediction_logs(logs, version, image_size, log)
    hidden = len(log.faults) - _MAX_FAULTS
    return log._replace(faults=[*log.faults[:_MAX_FAULTS], *([f'and {hidden:,} more such faults'] * (hidden > 0))])


def _read_sample(file: Path, version: int, log: RequestLog) -> None:
    """Adds a day of a request sample to the log."""
    try:
        lines = file.read_text(errors='replace').splitlines()
    except OSError as error:
        raise UsageError(f'{file} cannot be read: {to_one_line(error)}.') from error
    for number, line in enumerate(lines, start=1):
        try:
            image = parse_line(line)
        except ValueError:
            log.faults.append(f'line {number} of {file} is damaged and was left out')
            continue
        log.counts[image.version] += 1
        if image.version == version:
            log.images.append(image)


class _Answered(NamedTuple):
    """A PredictionLog's request and answer."""

    rows: list[Row]
    version: int | None
    signature: str


def _read_prediction_logs(files: list[Path], version: int, image_size: int, log: RequestLog) -> None:
    """Adds a sample of the images in PredictionLogs to the log, and measures only these.

    PredictionLogs have no time, so that of the file stands for it.
    """
    kept: dict[int, AskedImage] = {}
    waiting: dict[int, tuple[Row, str, int | None, str]] = {}

    def measure() -> None:
        described = describe_rows(list(waiting.values()), image_size)
        kept.update(zip(waiting, (image for image, _ in described), strict=True))
        waiting.clear()

    index = 0
    with track('reading the requests', None, 'requests') as advance:
        for answered in _iterate_logs(files, log):
            log.counts[answered.version] += len(answered.rows)
            for row in answered.rows if answered.version == version else ():
                slot = choose_slot(0, '', index, SAMPLE_SIZE)
                index += 1
                if slot is not None:
                    waiting[slot] = (row, '', answered.version, answered.signature)
            if len(waiting) >= _BATCH:
                measure()
            advance(1)
        measure()
    if index > SAMPLE_SIZE:
        log.faults.append(f'of {index:,} images in the TFRecords a sample of {SAMPLE_SIZE:,} was measured')
    log.images.extend(kept[slot] for slot in sorted(kept))


def _iterate_logs(files: list[Path], log: RequestLog) -> Iterator[_Answered]:
    """Reads the PredictionLogs of all files, and adds a fault for each that cannot be used."""
    with track_imports(TENSORFLOW_MODULES):
        import tensorflow as tf
        from tensorflow_serving.apis import prediction_log_pb2
    from google.protobuf.message import DecodeError

    for file in files:
        compression = 'GZIP' if file.suffix == '.gz' else ''
        records = tf.data.TFRecordDataset(str(file), compression_type=compression).as_numpy_iterator()
        number = 0
        try:
            for number, record in enumerate(records, start=1):
                try:
                    logged = prediction_log_pb2.PredictionLog.FromString(record)
                    request, response = logged.predict_log.request, logged.predict_log.response
                    inputs, outputs = (
                        {name: tf.make_ndarray(tensor) for name, tensor in tensors.items()}
                        for tensors in (request.inputs, response.outputs)
                    )
                except (DecodeError, TypeError, ValueError) as error:
                    log.faults.append(f'record {number} of {file} is no PredictionLog ({to_one_line(error, 80)})')
                    continue
                specs = (response.model_spec, logged.log_metadata.model_spec)
                found = next((spec.version.value for spec in specs if spec.HasField('version')), None)
                rows = list_rows(inputs, outputs)
                if not rows:
                    log.faults.append(f'record {number} of {file} is no answered request for a class')
                yield _Answered(rows, found, request.model_spec.signature_name)
        except tf.errors.OpError as error:
            log.faults.append(
                f'{file} cannot be read as TFRecords after record {number:,} ({to_one_line(error, 80)}); the rest of '
                'it was left out'
            )
