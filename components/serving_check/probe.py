"""The first client of a model: a process with TensorFlow alone that loads it and asks it as others will.

    python -I serving_client.py REQUEST.json RESULT.json

`components.serving_check.questions` starts it, and `components.serving_check.tf_serving` asks a TensorFlow Serving the
same questions. Neither our packages nor Keras are imported, so that a model that answers here needs neither of them;
all names come with the request:

    model, predictions: the SavedModel's folder; the Trainer's predictions, TFRecords.
    inputs: {signature: [input, 'encoded' | 'pixels' | 'examples']}.
    transform: [signature, output] of the one that preprocesses; the others classify.
    image, label, class_name, probabilities: keys of the records and answers.
    class_names, image_shape, batch_sizes, requests: what is asked with, and how many single images are timed.

The result is {'failures': [fault, ...], 'figures': {...}, 'differences': {signature: distance}}.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

if __name__ == '__main__':
    sys.modules['keras'] = None  # a model server has no Keras; without it TensorFlow's import takes half the time
import tensorflow as tf

BROKEN_IMAGE = b'these bytes are no image'
_LEAST_IMAGES = 4  # that a signature answers with each batch size, so that one borderline image decides nothing
_WARM_REQUESTS = 3  # before any is timed
_SUM_TOLERANCE = 0.01

Answer = dict[str, np.ndarray]
Ask = Callable[[np.ndarray], Answer]
Fault = dict[str, Any]
Errors = tuple[type[Exception], ...]


class Sample(NamedTuple):
    """What to ask with. inputs: rows by signature, [N, ...]; broken: a row with no image; probabilities: [N, C]."""

    inputs: dict[str, np.ndarray]
    broken: dict[str, bytes]
    probabilities: np.ndarray


def make_fault(metric: str, slice_name: str, count: int, *, value: float = 1, detail: str = '') -> Fault:
    """A fault as a `components.serving_check.report.Reason` takes it; value: how many of `count` have it."""
    return {'metric': metric, 'slice': slice_name, 'value': value, 'bound': 0, 'count': count, 'detail': detail}


def _shorten(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'


def _decode(encoded: bytes, shape: list[int]) -> np.ndarray:
    """uint8 pixels; images of other sizes are brought to the contract's as the model itself brings them."""
    image = tf.io.decode_image(encoded, channels=shape[-1], expand_animations=False)
    if image.shape != shape:
        image = tf.round(tf.image.resize(image, shape[:2], antialias=True))
    return tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8).numpy()


def _make_example(key: str, encoded: bytes) -> bytes:
    feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def read_sample(request: dict[str, Any]) -> Sample:
    """The recorded images in the form that each signature takes, and what the trained network gave for them."""
    spec = {
        request['image']: tf.io.FixedLenFeature([], tf.string),
        request['probabilities']: tf.io.FixedLenFeature([len(request['class_names'])], tf.float32),
    }
    records = list(tf.data.TFRecordDataset(request['predictions']).as_numpy_iterator())
    parsed = tf.io.parse_example(records, spec)
    encoded = parsed[request['image']].numpy()
    forms = {
        'encoded': encoded,
        'pixels': np.stack([_decode(image, request['image_shape']) for image in encoded]),
        'examples': np.array([_make_example(request['image'], image) for image in encoded], object),
    }
    broken = {'encoded': BROKEN_IMAGE, 'examples': _make_example(request['image'], BROKEN_IMAGE)}
    return Sample(
        inputs={name: forms[form] for name, (_, form) in request['inputs'].items()},
        broken={name: broken[form] for name, (_, form) in request['inputs'].items() if form in broken},
        probabilities=parsed[request['probabilities']].numpy(),
    )


def find_faults(answer: Answer, count: int, request: dict[str, Any], name: str) -> Iterator[Fault]:
    """What is wrong with an answer to `count` images, apart from which class it gives."""
    classes = np.array([class_name.encode() for class_name in request['class_names']], object)
    for key, shape, dtype in (
        (request['label'], (count,), 'int64'),
        (request['class_name'], (count,), 'object'),
        (request['probabilities'], (count, len(classes)), 'float32'),
    ):
        found = answer[key]
        if found.shape != shape or found.dtype != dtype:
            yield make_fault('form', name, count, detail=f'{key} {found.dtype} {list(found.shape)}')
            return
    probabilities, label = answer[request['probabilities']], answer[request['label']]
    finite = np.isfinite(probabilities).all(axis=1)
    right = finite & (label == probabilities.argmax(axis=1))
    named = classes[np.clip(label, 0, len(classes) - 1)] == answer[request['class_name']]
    for metric, faulty in (
        ('finite', ~finite),
        ('sum', finite & ~(np.abs(probabilities.sum(axis=1) - 1) <= _SUM_TOLERANCE)),
        ('label', finite & ~right),
        ('class_name', right & ~named),
    ):
        if faulty.any():
            yield make_fault(metric, name, count, value=int(faulty.sum()))


def check_signature(
    ask: Ask,
    name: str,
    images: np.ndarray,
    expected: np.ndarray,
    sizes: list[int],
    request: dict[str, Any],
    errors: Errors,
) -> tuple[list[Fault], float | None]:
    """Asks with each batch size, the largest first, which all images are asked with; stops at the first fault.

    Args:
      ask: puts one batch to the signature.
      name: of the signature, in faults.
      images: what to ask with, [N].
      expected: the recorded probabilities, [N, C].
      sizes: of the batches; 0 is an empty one.
      request: see the module.
      errors: what `ask` raises.

    Returns:
      The faults; and the mean total variation distance from the recorded probabilities, of the batch size where it is
      greatest, None where there was a fault.
    """
    distances = []
    for size in sorted(sizes, reverse=True):
        least = len(images) if not distances else _LEAST_IMAGES
        rows = np.arange(-(-least // size) * size if size else 0) % len(images)
        found = []
        for start in range(0, len(rows) or 1, size or 1):
            batch = rows[start : start + size]
            try:
                answer = ask(images[batch])
            except errors as error:
                return [make_fault('error', name, size, detail=_shorten(error))], None
            faults = list(find_faults(answer, size, request, name))
            if faults:
                return faults, None
            found.append(np.abs(answer[request['probabilities']] - expected[batch]).sum(axis=1) / 2)
        if size:
            distances.append(float(np.concatenate(found).mean()))
    return [], max(distances)


def check_broken(ask: Ask, name: str, good: np.ndarray, broken: bytes, errors: Errors, refusals: Errors) -> list[Fault]:
    """An image that is none must be refused, with one of `refusals`, and the next request must be answered.

    Args:
      ask, name, errors: see `check_signature`.
      good: rows that are answered, [N].
      broken: a row that cannot be.
      refusals: those of `errors` that say that the request was at fault.
    """
    faults = []
    try:
        ask(np.array([broken], object))
        faults.append(make_fault('broken', name, 1, detail='an answer'))
    except refusals:
        pass
    except errors as error:
        faults.append(make_fault('broken', name, 1, detail=_shorten(error)))
    try:
        ask(good[:1])
    except errors as error:
        faults.append(make_fault('after_broken', name, 1, detail=_shorten(error)))
    return faults


def check_transform(ask: Ask, sample: Sample, request: dict[str, Any]) -> list[Fault]:
    """Asks the signature that preprocesses with each batch size; see `check_signature`."""
    (name, output), images = request['transform'], sample.inputs[request['transform'][0]]
    for size in (*request['batch_sizes'], 0):
        try:
            answer = ask(images[np.arange(size) % len(images)])[output]
        except tf.errors.OpError as error:
            return [make_fault('error', name, size, detail=_shorten(error))]
        if len(answer) != size or answer.dtype != 'float32':
            return [make_fault('form', name, size, detail=f'{output} {answer.dtype} {list(answer.shape)}')]
        broken = sum(not np.isfinite(image).all() for image in answer)
        if broken:
            return [make_fault('finite', name, size, value=broken)]
    return []


def time_requests(ask: Ask, images: np.ndarray, count: int) -> list[float]:
    """Milliseconds of each of `count` requests with one image, the images in turn."""
    times = []
    for number in range(_WARM_REQUESTS + count):
        begin = time.perf_counter()
        ask(images[[number % len(images)]])
        times.append((time.perf_counter() - begin) * 1000)
    return times[_WARM_REQUESTS:]


def _read_peak_mb() -> float:
    """Peak memory of this process; getrusage's would be the parent's, where that held more when it started this one."""
    (line,) = (line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM:'))
    return int(line.split()[1]) * 1024 / 1e6


def _make_ask(signature: Callable, key: str, form: str) -> Ask:
    dtype = tf.uint8 if form == 'pixels' else tf.string

    def ask(batch: np.ndarray) -> Answer:
        return {name: value.numpy() for name, value in signature(**{key: tf.constant(batch, dtype)}).items()}

    return ask


def check_model(request: dict[str, Any]) -> dict[str, Any]:
    """Loads the model and asks it; see the module for request and result."""
    failures, differences, figures = [], {}, {}
    result = {'failures': failures, 'differences': differences, 'figures': figures}
    begin = time.perf_counter()
    try:
        model = tf.saved_model.load(request['model'])
    except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
        failures.append(make_fault('load', '', 1, detail=_shorten(error)))
        return result
    figures['load_s'] = time.perf_counter() - begin
    missing = sorted({*request['inputs']} - {*model.signatures})
    if missing:
        failures += [make_fault('missing', name, 1) for name in missing]
        return result
    asks = {name: _make_ask(model.signatures[name], *how) for name, how in request['inputs'].items()}
    sample, errors, refusals = read_sample(request), (tf.errors.OpError,), (tf.errors.InvalidArgumentError,)
    failures += check_transform(asks.pop(request['transform'][0]), sample, request)
    for name, ask in asks.items():
        images, sizes = sample.inputs[name], [*request['batch_sizes'], 0]
        faults, difference = check_signature(ask, name, images, sample.probabilities, sizes, request, errors)
        if difference is not None:
            differences[name] = difference
            if name in sample.broken:
                faults += check_broken(ask, name, images, sample.broken[name], errors, refusals)
            if request['inputs'][name][1] == 'encoded':
                times = time_requests(ask, images, request['requests'])
                figures |= {'p50_ms': float(np.percentile(times, 50)), 'p99_ms': float(np.percentile(times, 99))}
        failures += faults
    figures['memory_mb'] = _read_peak_mb()
    return result


if __name__ == '__main__':
    Path(sys.argv[2]).write_text(json.dumps(check_model(json.loads(Path(sys.argv[1]).read_text()))))
