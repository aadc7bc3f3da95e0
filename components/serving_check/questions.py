"""What the serving check asks, and whom it asks: a fresh process, and TensorFlow Serving if there is one."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from components import features
from components.contract import CHANNELS, DataContract
from components.image_fit import fit_image, read_orientation, turn_upright
from components.progress import track
from components.serving.model_servers import find_model_server
from components.serving.models_config import MODEL_NAME
from components.serving_check import probe
from components.serving_check.config import ServingCheckConfig
from components.serving_check.probe import Fault, Sample, make_fault
from components.serving_check.tf_serving import check_server

_TIMED_SIZES = 8  # at most, so that the check does not take long
_MAX_WARMUP_BYTES = 10e6  # of all requests; each version keeps them
_TIMEOUT_S = 1800.0  # for the whole process, so that a model that hangs does not make the run hang


def _choose_timed(sizes: tuple[int, ...]) -> list[int]:
    """Returns all sizes if they are few, else some of them from the first to the last, evenly spread."""
    count = min(len(sizes), _TIMED_SIZES)
    return [sizes[round(step * (len(sizes) - 1) / max(count - 1, 1))] for step in range(count)]


def write_pixels(predictions: Path, out: Path, contract: DataContract, *, is_stretched: bool) -> None:
    """Writes the images of the Trainer's predictions as pixels: a file of NumPy's, uint8 [N, H, W, 3].

    They are decoded by TensorFlow, as the model does it: Pillow gives JPEG slightly different pixels.

    Args:
      predictions: the Trainer's features.PREDICTIONS_FILE.
      out: file to write.
      contract: the model's, with the size of its raw images.
      is_stretched: whether the model squeezes the whole image into the square.
    """
    images = []
    for record in tf.data.TFRecordDataset(str(predictions)).as_numpy_iterator():
        (encoded,) = tf.train.Example.FromString(record).features.feature[features.IMAGE_KEY].bytes_list.value
        decoded = tf.io.decode_image(encoded, channels=CHANNELS, expand_animations=False).numpy()
        upright = turn_upright(Image.fromarray(decoded), read_orientation(Image.open(io.BytesIO(encoded))))
        images.append(np.asarray(fit_image(upright, contract.image_size, is_stretched=is_stretched)))
    np.save(out, np.stack(images))


def make_request(
    model: str, predictions: str, pixels: str, config: ServingCheckConfig, contract: DataContract
) -> dict[str, Any]:
    """Makes the request for `components.serving_check.probe`, which describes it.

    Args:
      model: path of the SavedModel's folder.
      predictions: path of the Trainer's features.PREDICTIONS_FILE.
      pixels: path of what `write_pixels` made of it.
      config: what to ask.
      contract: the model's.
    """
    return {
        'model': model,
        'predictions': predictions,
        'pixels': pixels,
        'inputs': {
            features.SIGNATURE_SERVING_DEFAULT: (features.IMAGE_KEY, 'encoded'),
            features.SIGNATURE_SAFE: (features.IMAGE_KEY, 'encoded'),
            features.SIGNATURE_RAW: (features.IMAGE_KEY, 'pixels'),
            features.SIGNATURE_EXAMPLES: ('examples', 'examples'),
            features.SIGNATURE_EXPLAIN: (features.IMAGE_KEY, 'encoded'),
            features.SIGNATURE_TRANSFORM: ('examples', 'examples'),
        },
        'timed': features.SIGNATURE_SERVING_DEFAULT,
        'safe': (features.SIGNATURE_SAFE, features.OUTPUT_ERROR),
        'explain': (
            features.SIGNATURE_EXPLAIN,
            features.LABEL_KEY,
            (features.OUTPUT_SEEN, features.OUTPUT_HEAT_MAP),
        ),
        'no_label': features.NO_LABEL,
        'transform': (features.SIGNATURE_TRANSFORM, features.IMAGE_XF_KEY),
        'image': features.IMAGE_KEY,
        'label': features.OUTPUT_LABEL,
        'class_name': features.OUTPUT_CLASS_NAME,
        'probabilities': features.OUTPUT_PROBABILITIES,
        'class_names': contract.class_names,
        'naming': (features.SIGNATURE_CLASS_NAMES, features.LABEL_KEY, features.OUTPUT_CLASS_NAME),
        'batch_sizes': sorted({config.batch_sizes[0], config.batch_sizes[-1]}),
        'timed_sizes': _choose_timed(config.batch_sizes),
        'requests': config.requests,
    }


def write_warmup(path: Path, request: dict[str, Any], sample: Sample, batch_sizes: tuple[int, ...]) -> None:
    """Writes the requests that TensorFlow Serving runs while it loads the model: one per signature and batch size.

    The largest batches of a signature are left out where the file would become too large.

    Args:
      path: file to write.
      request: from `make_request`.
      sample: the images to put into the requests.
      batch_sizes: numbers of images in a request.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in request['inputs']:
            bytes_left = _MAX_WARMUP_BYTES / len(request['inputs'])
            for size in batch_sizes:
                record = _make_warmup(request, name, sample.inputs[name].take(range(size), axis=0, mode='wrap'))
                bytes_left -= len(record)
                if bytes_left < 0 and size != batch_sizes[0]:
                    break
                writer.write(record)


def _make_warmup(request: dict[str, Any], name: str, batch: probe.Array) -> bytes:
    """Makes the record of a warm-up request that sends this batch to a signature."""
    asked = predict_pb2.PredictRequest()
    asked.model_spec.name, asked.model_spec.signature_name = MODEL_NAME, name
    for key, value in probe.make_inputs(request, name, batch).items():
        asked.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=asked))
    record: bytes = log.SerializeToString()
    return record


def ask_client(request: dict[str, Any], folder: Path, timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
    """Asks the model in a fresh process, which uses the CPU because this process may hold all of the GPU's memory.

    Args:
      request: from `make_request`.
      folder: an empty folder to run in.
      timeout_s: seconds after which the process is stopped.

    Returns:
      The result that `components.serving_check.probe` describes. A process that fails is one of its faults.
    """
    question, result, errors = (folder / name for name in ('request.json', 'result.json', 'errors.txt'))
    question.write_text(json.dumps(request))
    command = [sys.executable, '-I', probe.__file__, str(question), str(result)]
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': '-1', 'TF_CPP_MIN_LOG_LEVEL': '2'}
    with errors.open('w') as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=file, text=True, errors='replace'
        )
    is_late = _follow(process, timeout_s)
    if process.returncode == 0:
        found: dict[str, Any] = json.loads(result.read_text())
        return found
    if is_late:
        detail = f'had no result after {timeout_s:.0f} s'
    elif process.returncode < 0:
        detail = f'was ended by {signal.Signals(-process.returncode).name}'
    else:
        detail = f'failed: {(errors.read_text(errors="replace").splitlines() or [""])[-1][:300]}'
    return {'failures': [make_fault('process', '', 1, detail=detail)], 'figures': {}, 'differences': {}, 'batch_ms': {}}


def _follow(process: subprocess.Popen[str], timeout_s: float) -> bool:
    """Reports how far the process has come until it ends; kills it after `timeout_s`, and returns whether it did so."""
    assert process.stdout is not None
    is_late = False

    def kill() -> None:
        nonlocal is_late
        is_late = True
        process.kill()

    timer = threading.Timer(timeout_s, kill)
    timer.start()
    try:
        lines = (line.split() for line in process.stdout if line.startswith(f'{probe.PROGRESS} '))
        with track('loading the model'):
            total = int(next(lines, ('', '0', '0'))[2])
        with track('requests', total, 'requests') as advance:
            for _ in lines:
                advance(1)
        process.wait()
    finally:
        timer.cancel()
        process.kill()  # does nothing if it has ended
        process.wait()
        process.stdout.close()
    return is_late


def ask_server(
    versions: Path, sample: Sample, request: dict[str, Any], *, is_required: bool
) -> tuple[str, list[Fault], dict[str, float]]:
    """Asks TensorFlow Serving, if there is one on this machine.

    Args:
      versions: folder with the SavedModel under its number.
      sample: what to ask with.
      request: from `make_request`.
      is_required: whether a missing server is a fault.

    Returns:
      Which server was asked, or that there is none; the faults; and the differences by signature and protocol.
    """
    server = find_model_server()
    if server is not None:
        with track('requests to TensorFlow Serving'):
            return f'{server.name} asked', *check_server(server, versions, MODEL_NAME, sample, request)
    if not is_required:
        return 'no TensorFlow Serving here', [], {}
    detail = 'there is none on this machine, and serving_check.server=required needs one'
    return 'no TensorFlow Serving here', [make_fault('server', '', 1, detail=detail)], {}
