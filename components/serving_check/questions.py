"""What the serving check asks, and whom: a fresh process, and a TensorFlow Serving where there is one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tfx.utils import io_utils

from components import features
from components.serving.models_config import MODEL_NAME
from components.serving_check import probe
from components.serving_check.config import ServingCheckConfig
from components.serving_check.probe import Fault, Sample, make_fault
from components.serving_check.tf_serving import check_server, find_server

_TIMEOUT_S = 1800.0  # for the whole process: a model that hangs must not hang the run


def make_request(model: str, predictions: str, config: ServingCheckConfig) -> dict[str, Any]:
    """What `components.serving_check.probe` must be told."""
    return {
        'model': model,
        'predictions': predictions,
        'inputs': {
            features.SIGNATURE_SERVING_DEFAULT: (features.IMAGE_KEY, 'encoded'),
            features.SIGNATURE_RAW: (features.IMAGE_KEY, 'pixels'),
            features.SIGNATURE_EXAMPLES: ('examples', 'examples'),
            features.SIGNATURE_TRANSFORM: ('examples', 'examples'),
        },
        'transform': (features.SIGNATURE_TRANSFORM, features.IMAGE_XF_KEY),
        'image': features.IMAGE_KEY,
        'label': features.OUTPUT_LABEL,
        'class_name': features.OUTPUT_CLASS_NAME,
        'probabilities': features.OUTPUT_PROBABILITIES,
        'class_names': features.CLASS_NAMES,
        'image_shape': features.IMAGE_SHAPE,
        'batch_sizes': sorted({config.batch_sizes[0], config.batch_sizes[-1]}),
        'requests': config.requests,
    }


def write_warmup(path: str, request: dict[str, Any], sample: Sample, batch_sizes: tuple[int, ...]) -> None:
    """Writes a request with real images for each signature and batch size, which TensorFlow Serving runs on loading."""
    logs = []
    for name, (key, _) in request['inputs'].items():
        for size in batch_sizes:
            asked = predict_pb2.PredictRequest()
            asked.model_spec.name, asked.model_spec.signature_name = MODEL_NAME, name
            asked.inputs[key].CopyFrom(tf.make_tensor_proto(sample.inputs[name].take(range(size), axis=0, mode='wrap')))
            logs.append(prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=asked)))
    io_utils.write_tfrecord_file(path, *logs)


def ask_client(request: dict[str, Any], folder: Path, timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
    """Asks the model in a fresh process, on the CPU: this one may hold the GPU's memory.

    Args:
      request: from `make_request`.
      folder: empty, to run in.
      timeout_s: seconds after which the process is ended.

    Returns:
      The result as `components.serving_check.probe` has it; a process that did not end well is a fault.
    """
    question, result = folder / 'request.json', folder / 'result.json'
    question.write_text(json.dumps(request))
    command = [sys.executable, '-I', probe.__file__, str(question), str(result)]
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': '-1', 'TF_CPP_MIN_LOG_LEVEL': '2'}
    try:
        ended = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        detail = f'had no result after {timeout_s:.0f} s'
    else:
        if ended.returncode == 0:
            return json.loads(result.read_text())
        if ended.returncode < 0:
            detail = f'was ended by {signal.Signals(-ended.returncode).name}'
        else:
            detail = f'failed: {(ended.stderr.splitlines() or [""])[-1][:300]}'
    return {'failures': [make_fault('process', '', 1, detail=detail)], 'figures': {}, 'differences': {}}


def ask_server(
    versions: Path, sample: Sample, request: dict[str, Any], *, is_required: bool
) -> tuple[str, list[Fault], dict[str, float]]:
    """Asks a TensorFlow Serving: which one or that there is none, and what `check_server` found."""
    server = find_server()
    if server is not None:
        return f'{server.name} asked', *check_server(server, versions, MODEL_NAME, sample, request)
    faults = [make_fault('server', '', 1, detail='none is here, and serving_check.server=required asks for one')]
    return 'no TensorFlow Serving here', faults if is_required else [], {}
