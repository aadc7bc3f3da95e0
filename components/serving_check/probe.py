"""The first client of a model: a process with only TensorFlow, which loads the model and asks it as others will.

    python -I probe.py REQUEST.json RESULT.json

`components.serving_check.questions` starts it, and `components.serving_check.tf_serving` sends the same questions to
TensorFlow Serving. The process imports neither our packages nor Keras, so a model that answers here needs neither of
them. So all names come with the request, a JSON object:

    model: path of the SavedModel's folder.
    predictions: path of the Trainer's predictions, TFRecords.
    pixels: path of their images as the signature that takes pixels needs them: a file of NumPy's, uint8 [N, H, W, 3].
    inputs: {signature: [input, 'encoded' | 'pixels' | 'examples']}.
    timed: the signature whose requests are timed.
    safe: [signature, output]: the one that answers for a broken image too, and its output that says what is wrong.
    explain: [signature, input, outputs]: the one that takes a second input, int64, the classes to explain; and its
        outputs, the network's inputs as RGB and where it sees the class.
    no_label: stands for no class: 'safe' gives it to a broken image, and 'explain' takes it for the predicted one.
    transform: [signature, output] of the signature that preprocesses images; the other signatures classify them.
    image: the key of the image in a record.
    label, class_name, probabilities: keys of the model's outputs; records have `probabilities` too.
    class_names: of all classes, by label.
    naming: [signature, input, output] of the one that gives the class names of labels.
    batch_sizes: numbers of images in a request.
    timed_sizes: numbers of images in requests to time.
    requests: how many requests with a single image to time.

The result is a JSON object too: {'failures': [fault, ...], 'figures': {...}, 'differences': {signature: distance},
'batch_ms': {number of images in a request: median milliseconds}}.
When the model has been loaded, and after each request, a line on standard output says how far the process has come:
'progress DONE TOTAL', in requests.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

if __name__ == '__main__':
    # A model server has no Keras, and without it TensorFlow's import takes half the time.
    sys.modules['keras'] = None  # type: ignore[assignment]  # Python's import system allows None, for "not importable"
import tensorflow as tf

PROGRESS = 'progress'  # how a line on standard output begins that says how far the process has come
BROKEN_IMAGE = b'these bytes are not an image'
_LEAST_IMAGES = 4  # to ask with each batch size, so that a single borderline image does not decide
_WARM_REQUESTS = 3  # requests before the timed ones
_BATCH_REQUESTS = 3  # timed requests of each batch size
_SUM_TOLERANCE = 0.01

Array = npt.NDArray[Any]
Response = dict[str, Array]  # a signature's outputs by key
Ask = Callable[[Array], Response]  # sends one batch to a signature
Fault = dict[str, Any]
Errors = tuple[type[Exception], ...]


class Sample(NamedTuple):
    """What to ask with: N recorded images."""

    inputs: dict[str, Array]
    """By signature, the images in the form that it takes; [N, ...]."""
    broken: dict[str, bytes]
    """By signature, an input in that form that is not an image; not for signatures that take pixels."""
    probabilities: Array
    """The trained network's predictions for the images; float32 [N, C]."""


def make_inputs(request: dict[str, Any], name: str, batch: Array) -> dict[str, Array]:
    """Makes all inputs of a signature, by key, for a batch of images in the form that it takes."""
    explain, label, _ = request['explain']
    labels = {label: np.full(len(batch), request['no_label'], np.int64)} if name == explain else {}
    return {request['inputs'][name][0]: batch, **labels}


def make_fault(metric: str, slice_name: str, count: int, *, value: float = 1, detail: str = '') -> Fault:
    """Makes a fault: the arguments of `components.serving_check.report.make_reason`.

    Args:
      metric: which kind of fault.
      slice_name: the signature; '' for the whole model.
      count: number of images that were asked, or of other things.
      value: how many of `count` have the fault.
      detail: what is wrong, in words.
    """
    return {'metric': metric, 'slice': slice_name, 'value': value, 'bound': 0, 'count': count, 'detail': detail}


def _shorten(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'


def _make_example(key: str, encoded: bytes) -> bytes:
    feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))}
    return bytes(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def read_sample(request: dict[str, Any]) -> Sample:
    """Reads the recorded images, brings them into the form that each signature takes, and reads their predictions."""
    spec = {
        request['image']: tf.io.FixedLenFeature([], tf.string),
        request['probabilities']: tf.io.FixedLenFeature([len(request['class_names'])], tf.float32),
    }
    records = list(tf.data.TFRecordDataset(request['predictions']).as_numpy_iterator())
    parsed = tf.io.parse_example(records, spec)
    encoded = parsed[request['image']].numpy()
    forms = {
        'encoded': encoded,
        'pixels': np.load(request['pixels']),
        'examples': np.array([_make_example(request['image'], image) for image in encoded], object),
    }
    broken = {'encoded': BROKEN_IMAGE, 'examples': _make_example(request['image'], BROKEN_IMAGE)}
    return Sample(
        inputs={name: forms[form] for name, (_, form) in request['inputs'].items()},
        broken={name: broken[form] for name, (_, form) in request['inputs'].items() if form in broken},
        probabilities=parsed[request['probabilities']].numpy(),
    )


def find_faults(response: Response, count: int, request: dict[str, Any], name: str) -> Iterator[Fault]:
    """Finds what is wrong with the response to `count` images, except for which class it gives.

    Args:
      response: the signature's outputs.
      count: number of images in the request.
      request: see the module.
      name: of the signature, for the faults.
    """
    classes = np.array([class_name.encode() for class_name in request['class_names']], object)
    for key, shape, dtype in (
        (request['label'], (count,), 'int64'),
        (request['class_name'], (count,), 'object'),
        (request['probabilities'], (count, len(classes)), 'float32'),
    ):
        found = response[key]
        if found.shape != shape or found.dtype != dtype:
            yield make_fault('form', name, count, detail=f'{key} {found.dtype} {list(found.shape)}')
            return
    probabilities, label = response[request['probabilities']], response[request['label']]
    finite = np.isfinite(probabilities).all(axis=1)
    right = finite & (label == probabilities.argmax(axis=1))
    named = classes[np.clip(label, 0, len(classes) - 1)] == response[request['class_name']]
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
    images: Array,
    expected: Array,
    sizes: list[int],
    request: dict[str, Any],
    errors: Errors,
) -> tuple[list[Fault], float | None]:
    """Asks a signature that classifies with each batch size, and stops at the first fault.

    The largest batch size comes first, and is asked with all images; the others are asked with a few.

    Args:
      ask: sends one batch to the signature.
      name: of the signature, for the faults.
      images: what to ask with, [N].
      expected: the recorded probabilities, [N, C].
      sizes: of the batches; 0 stands for an empty batch.
      request: see the module.
      errors: what `ask` raises if the signature fails.

    Returns:
      The faults; and the mean total variation distance from the recorded probabilities, for the batch size for which it
      is greatest; None if there is a fault.
    """
    distances: list[float] = []
    for size in sorted(sizes, reverse=True):
        least = len(images) if not distances else _LEAST_IMAGES
        rows = np.arange(-(-least // size) * size if size else 0) % len(images)
        found = []
        for start in range(0, len(rows) or 1, size or 1):
            batch = rows[start : start + size]
            try:
                response = ask(images[batch])
            except errors as error:
                return [make_fault('error', name, size, detail=_shorten(error))], None
            faults = list(find_faults(response, size, request, name))
            if faults:
                return faults, None
            found.append(np.abs(response[request['probabilities']] - expected[batch]).sum(axis=1) / 2)
        if size:
            distances.append(float(np.concatenate(found).mean()))
    return [], max(distances)


def check_broken(ask: Ask, name: str, good: Array, broken: bytes, errors: Errors, refusals: Errors) -> list[Fault]:
    """Checks that a signature refuses bytes that are not an image, and answers the next request.

    Args:
      ask, name, errors: see `check_signature`.
      good: inputs that are images, [N].
      broken: an input that is not an image.
      refusals: those of `errors` which say that the request was wrong, and not the model.
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


def check_safe(
    ask: Ask, name: str, images: Array, broken: bytes, request: dict[str, Any], errors: Errors
) -> list[Fault]:
    """Checks that the safe signature answers for the other images of a batch in which one is broken.

    Args:
      ask, name, images, request, errors: see `check_signature`.
      broken: an input that is not an image.
    """
    batch = np.array([images[0], broken, images[-1]], object)
    try:
        response = ask(batch)
    except errors as error:
        return [make_fault('error', name, len(batch), detail=_shorten(error))]
    whole = {key: np.delete(value, 1, axis=0) for key, value in response.items()}
    faults = list(find_faults(whole, 2, request, name))
    said, label = response[request['safe'][1]], response[request['label']]
    is_told = [bool(sentence) for sentence in said] == [False, True, False] and label[1] == request['no_label']
    return faults if faults or is_told else [make_fault('safe', name, 1)]


def check_explain(ask: Ask, name: str, images: Array, request: dict[str, Any], errors: Errors) -> list[Fault]:
    """Checks the form of what the network saw of an image, and of where it looked, with values from 0 to 1.

    Args:
      ask, name, images, request, errors: see `check_signature`.
    """
    try:
        response = ask(images[:1])
    except errors as error:
        return [make_fault('error', name, 1, detail=_shorten(error))]
    seen, heat_map = (response[key] for key in request['explain'][2])
    for key, value, dtype, rank in zip(
        request['explain'][2], (seen, heat_map), ('uint8', 'float32'), (4, 3), strict=True
    ):
        if value.dtype != dtype or value.ndim != rank or len(value) != 1:
            return [make_fault('form', name, 1, detail=f'{key} {value.dtype} {list(value.shape)}')]
    # Of a value that is not a number, no comparison is true.
    return [] if ((heat_map >= 0) & (heat_map <= 1)).all() else [make_fault('finite', name, 1)]


def check_transform(ask: Ask, sample: Sample, request: dict[str, Any]) -> list[Fault]:
    """Asks the signature that preprocesses images with each batch size, and stops at the first fault."""
    (name, output), images = request['transform'], sample.inputs[request['transform'][0]]
    for size in (*request['batch_sizes'], 0):
        try:
            response = ask(images[np.arange(size) % len(images)])[output]
        except tf.errors.OpError as error:
            return [make_fault('error', name, size, detail=_shorten(error))]
        if len(response) != size or response.dtype != 'float32':
            return [make_fault('form', name, size, detail=f'{output} {response.dtype} {list(response.shape)}')]
        broken = sum(not np.isfinite(image).all() for image in response)
        if broken:
            return [make_fault('finite', name, size, value=broken)]
    return []


def check_class_names(signature: Any, request: dict[str, Any]) -> list[Fault]:
    """Checks that the signature that names labels knows all classes in their order, and gives others no name."""
    name, key, output = request['naming']
    labels = np.arange(-1, len(request['class_names']) + 1)
    expected = ['', *request['class_names'], '']
    try:
        found = signature(**{key: tf.constant(labels, tf.int64)})[output].numpy()
    except tf.errors.OpError as error:
        return [make_fault('error', name, len(labels), detail=_shorten(error))]
    if found.shape != labels.shape or found.dtype != object:
        return [make_fault('form', name, len(labels), detail=f'{output} {found.dtype} {list(found.shape)}')]
    wrong = sum(given != wanted.encode() for given, wanted in zip(found, expected, strict=True))
    return [make_fault('naming', name, len(labels), value=wrong)] if wrong else []


def time_requests(ask: Ask, images: Array, count: int, *, size: int = 1, warm: int = _WARM_REQUESTS) -> list[float]:
    """Returns the milliseconds that each of `count` requests with `size` images took; the images take turns.

    Args:
      ask: sends one batch to the signature.
      images: what to ask with, [N].
      count: number of timed requests.
      size: images in a request.
      warm: requests before the timed ones.
    """
    times = []
    for number in range(warm + count):
        batch = images[np.arange(number * size, (number + 1) * size) % len(images)]
        begin = time.perf_counter()
        ask(batch)
        times.append((time.perf_counter() - begin) * 1000)
    return times[warm:]


def _read_peak_mb() -> float:
    """Returns this process's peak memory in megabytes.

    Not with getrusage: it gives the parent's memory if the parent held more when it started this process.
    """
    (line,) = (line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM:'))
    return int(line.split()[1]) * 1024 / 1e6


def _make_ask(signature: Any, name: str, request: dict[str, Any]) -> Ask:
    dtypes = {key: spec.dtype for key, spec in signature.structured_input_signature[1].items()}

    def ask(batch: Array) -> Response:
        inputs = make_inputs(request, name, batch)
        response = signature(**{key: tf.constant(value, dtypes[key]) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in response.items()}

    return ask


def count_requests(request: dict[str, Any], sample: Sample) -> int:
    """Counts the requests of `check_model` to a model without faults."""
    *others, largest = sorted(request['batch_sizes'])
    batches = -(-len(sample.probabilities) // largest) + sum(-(-_LEAST_IMAGES // size) for size in others) + 1
    total = len(request['batch_sizes']) + 1  # of the signature that preprocesses
    for name in request['inputs']:
        if name != request['transform'][0]:
            total += batches + (1 if name == request['safe'][0] else 2 * (name in sample.broken))
            total += name == request['explain'][0]
            if name == request['timed']:
                total += _WARM_REQUESTS + request['requests']
                total += len(request['timed_sizes']) * _BATCH_REQUESTS
    return total


def _report_requests(asks: dict[str, Ask], total: int) -> dict[str, Ask]:
    """Makes functions that do the same, and print how many requests have been answered by now."""
    numbers = itertools.count()

    def print_number() -> None:
        sys.stdout.write(f'{PROGRESS} {next(numbers)} {total}\n')
        sys.stdout.flush()

    def report(ask: Ask) -> Ask:
        def ask_and_report(batch: Array) -> Response:
            try:
                return ask(batch)
            finally:
                print_number()  # takes microseconds, of timed requests too

        return ask_and_report

    print_number()
    return {name: report(ask) for name, ask in asks.items()}


def check_model(request: dict[str, Any]) -> dict[str, Any]:
    """Loads the model and asks it. The module describes request and result."""
    failures: list[Fault] = []
    differences: dict[str, float] = {}
    figures: dict[str, float] = {}
    batch_ms: dict[int, float] = {}
    result = {'failures': failures, 'differences': differences, 'figures': figures, 'batch_ms': batch_ms}
    begin = time.perf_counter()
    try:
        model = tf.saved_model.load(request['model'])
    except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
        failures.append(make_fault('load', '', 1, detail=_shorten(error)))
        return result
    figures['load_s'] = time.perf_counter() - begin
    missing = sorted({*request['inputs'], request['naming'][0]} - {*model.signatures})
    if missing:
        failures += [make_fault('missing', name, 1) for name in missing]
        return result
    sample, errors, refusals = read_sample(request), (tf.errors.OpError,), (tf.errors.InvalidArgumentError,)
    asks = {name: _make_ask(model.signatures[name], name, request) for name in request['inputs']}
    asks = _report_requests(asks, count_requests(request, sample))
    failures += check_class_names(model.signatures[request['naming'][0]], request)
    failures += check_transform(asks.pop(request['transform'][0]), sample, request)
    for name, ask in asks.items():
        images, sizes = sample.inputs[name], [*request['batch_sizes'], 0]
        faults, difference = check_signature(ask, name, images, sample.probabilities, sizes, request, errors)
        if difference is not None:
            differences[name] = difference
            if name == request['safe'][0]:
                faults += check_safe(ask, name, images, sample.broken[name], request, errors)
            elif name in sample.broken:
                faults += check_broken(ask, name, images, sample.broken[name], errors, refusals)
            if name == request['explain'][0]:
                faults += check_explain(ask, name, images, request, errors)
            if name == request['timed']:
                times = time_requests(ask, images, request['requests'])
                figures |= {'p50_ms': float(np.percentile(times, 50)), 'p99_ms': float(np.percentile(times, 99))}
                for size in request['timed_sizes']:
                    times = time_requests(ask, images, _BATCH_REQUESTS, size=size, warm=0)
                    batch_ms[size] = float(np.median(times))
        failures += faults
    figures['memory_mb'] = _read_peak_mb()
    return result


if __name__ == '__main__':
    Path(sys.argv[2]).write_text(json.dumps(check_model(json.loads(Path(sys.argv[1]).read_text()))))
