"""Predictions on the test split: makes them with a SavedModel, and keeps them for the runs that follow.

TFMA computes the metrics from these predictions and does not run the model itself. TFMA would send batches of every
size between 1 and 1,000 images through a model, and would carry the images through all of its steps.

The predictions are kept with a pushed version. If the next run has the same test split, the version is its baseline and
need not predict the images again.
"""

import hashlib
import logging
import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components import features
from components.errors import DataError
from components.progress import track
from components.saved_model import skip_costly_passes

_log = logging.getLogger(__name__)

# glibc gets memory for tensors of more than 32 MB from the kernel anew each time, page by page. At 224 pixels, ResNet50
# stays below this with 8 images at a time, and is a fifth faster on a CPU than with 32.
_CPU_BATCH_SIZE = 8
_GPU_BATCH_SIZE = 256  # the exported graph cuts this into pieces that fit the memory
# A second batch keeps the cores busy that the first one leaves idle between its steps: 2,000 images at 224 pixels took
# ResNet50 in bfloat16 18.5 s with 2 batches of 8 at once and 19.5 s with 1 on 2 cores; 3 of 16 took 17.9 s.
BATCHES_AT_ONCE = 2

Probabilities = npt.NDArray[np.float32]
"""The predictions of one model for all records, in their order: float32 [N, classes]."""


class Records(NamedTuple):
    """The records of a split, in an order that depends only on what they hold."""

    serialized: list[bytes]
    """The tf.Examples as they were read, N of them."""
    ids: npt.NDArray[np.bytes_]
    """Their ids, bytes [N]; empty for a record without an id."""
    labels: npt.NDArray[np.int64]
    """Their class labels, int64 [N]."""
    digest: str
    """SHA-256 over image, label and id of all records, in lower-case hex: the same for the same records in files of
    different names, in any order."""


class KeptPredictions(NamedTuple):
    """What a file of predictions holds, an .npz file of NumPy's with these arrays."""

    digest: npt.NDArray[np.str_]
    """`Records.digest` of the records that were predicted, a scalar."""
    ids: npt.NDArray[np.bytes_]
    """The records' ids, bytes [N]."""
    labels: npt.NDArray[np.int64]
    """The records' class labels, int64 [N]."""
    probabilities: Probabilities
    """The model's predictions for the records, float32 [N, classes]."""


def _hash_record(image: bytes, label: int, name: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (image, str(label).encode(), name):
        digest.update(f'{len(part)}:'.encode())
        digest.update(part)
    return digest.digest()


def read_records(file_patterns: Iterable[str]) -> Records:
    """Reads a whole split and sorts its records by the hashes of what they hold.

    Args:
      file_patterns: Globs of GZIP TFRecord files.

    Raises:
      DataError: The patterns match no file, or the files hold no record.
    """
    patterns = list(file_patterns)
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    dataset = tf.data.TFRecordDataset(files, compression_type='GZIP')
    serialized = list(dataset.as_numpy_iterator()) if files else []
    if not serialized:
        raise DataError(
            f'No TFRecord file with records matches {", ".join(patterns)}; the split is empty. Write the data again '
            'with `python -m pipeline data`.'
        )
    spec = {
        features.IMAGE_KEY: tf.io.FixedLenFeature([], tf.string, ''),
        features.LABEL_KEY: tf.io.FixedLenFeature([], tf.int64),
        features.ID_KEY: tf.io.FixedLenFeature([], tf.string, ''),
    }
    parsed = {key: value.numpy() for key, value in tf.io.parse_example(serialized, spec).items()}
    images, labels, ids = (parsed[key] for key in spec)
    hashes = [_hash_record(*record) for record in zip(images, labels.tolist(), ids, strict=True)]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    digest = hashlib.sha256(b''.join(hashes[index] for index in order)).hexdigest()
    return Records([serialized[index] for index in order], ids[order].astype(np.bytes_), labels[order], digest)


def read_images(records: Records) -> list[bytes]:
    """Returns the encoded images of records, in their order."""
    spec = {features.IMAGE_KEY: tf.io.FixedLenFeature([], tf.string, '')}
    images: list[bytes] = tf.io.parse_example(records.serialized, spec)[features.IMAGE_KEY].numpy().tolist()
    return images


def find_right(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Returns whether each prediction is right, [N]; probabilities that are not numbers are not."""
    finite = np.isfinite(probabilities).all(axis=1)
    return np.asarray(finite & (np.nan_to_num(probabilities).argmax(axis=1) == labels))


def choose_batch_size() -> int:
    """Returns the number of images that an exported model is given at a time, on the CPU or GPU that there is."""
    return _GPU_BATCH_SIZE if tf.config.list_physical_devices('GPU') else _CPU_BATCH_SIZE


def predict_records(saved_model: str, records: Records, what: str) -> Probabilities:
    """Predicts all records with an exported model, and reports the progress.

    The batches are not read by tf.data: a function runs on a single core there.

    Args:
      saved_model: Folder of a SavedModel with the signature `features.SIGNATURE_EXAMPLES`.
      records: What to predict.
      what: Names the model in the progress, such as 'the new model'.
    """
    batch_size = choose_batch_size()
    count = len(records.serialized)
    batches = []
    with track(f'predictions of {what} on {features.TEST_SPLIT}', count) as advance:
        model = tf.saved_model.load(saved_model)
        signature = skip_costly_passes(model.signatures[features.SIGNATURE_EXAMPLES])

        def predict(start: int) -> Probabilities:
            batch = tf.constant(records.serialized[start : start + batch_size])
            probabilities: Probabilities = signature(examples=batch)[features.OUTPUT_PROBABILITIES].numpy()
            return probabilities

        pool = ThreadPoolExecutor(1 if tf.config.list_physical_devices('GPU') else BATCHES_AT_ONCE)
        try:
            for probabilities in pool.map(predict, range(0, count, batch_size)):
                batches.append(probabilities)
                advance(len(probabilities))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C and errors wait only for the batches that are being predicted
    return np.concatenate(batches)


def write_predictions(file: Path, records: Records, probabilities: Probabilities) -> None:
    """Writes a model's predictions as `KeptPredictions`."""
    kept = KeptPredictions(np.array(records.digest), records.ids, records.labels, probabilities)
    arrays: dict[str, Any] = kept._asdict()
    np.savez_compressed(file, **arrays)


def read_predictions(file: Path) -> KeptPredictions:
    """Reads what `write_predictions` wrote.

    Raises:
      ValueError: The file is damaged.
    """
    try:
        with file.open('rb') as stream, np.load(stream, allow_pickle=False) as arrays:
            kept = KeptPredictions(*(arrays[name] for name in KeptPredictions._fields))
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f'{type(error).__name__}: {error}') from error
    shape, dtype, count = kept.probabilities.shape, kept.probabilities.dtype, len(kept.labels)
    if len(shape) != 2 or shape[0] != count or dtype != np.float32:
        raise ValueError(f'probabilities are {dtype} {shape} and must be float32 [{count}, classes]')
    return kept


def find_predictions(file: Path, records: Records, num_classes: int) -> tuple[Probabilities | None, str]:
    """Reads predictions that were kept, if they are of these records; a damaged file is ignored with a warning.

    Args:
      file: What `write_predictions` wrote; it may be missing or damaged.
      records: The records whose predictions are wanted.
      num_classes: Number of classes that the model knows.

    Returns:
      The predictions, and ''; or None, and why there are none to use, in words.
    """
    if not file.exists():
        return None, 'it was pushed without predictions'
    try:
        kept = read_predictions(file)
        if kept.probabilities.shape[1] != num_classes:
            raise ValueError(f'it has {kept.probabilities.shape[1]} probabilities an image, not {num_classes}')
    except ValueError as error:
        _log.warning('%s is damaged and is ignored (%s); the images are predicted again.', file, error)
        return None, 'the file of its predictions is damaged'
    if str(kept.digest) != records.digest or not np.array_equal(kept.labels, records.labels):
        return None, f'its predictions are for a different {features.TEST_SPLIT} split'
    return kept.probabilities, ''


def write_examples(file: Path, records: Records, predictions: dict[str, Probabilities]) -> None:
    """Writes what TFMA computes the metrics from: a GZIP TFRecord of a tf.Example for each record.

    Each has the record's label, and for each model a feature with the model's probabilities.

    Args:
      file: The file to write; its folder exists.
      records: The records.
      predictions: The models' predictions by the names of the features.
    """
    with tf.io.TFRecordWriter(str(file), 'GZIP') as writer:
        for index, label in enumerate(records.labels.tolist()):
            example = tf.train.Example()
            example.features.feature[features.LABEL_KEY].int64_list.value.append(label)
            for name, probabilities in predictions.items():
                example.features.feature[name].float_list.value.extend(probabilities[index].tolist())
            writer.write(example.SerializeToString())
