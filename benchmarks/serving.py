"""The load test: the exported model in the small server, against a plain Keras export in it and OpenVINO in process.

    python -m benchmarks.serving [--rounds N] [--images N] [--backbone NAME] [--image-size N]

Three things are measured, with random weights, on the small server of this project (`python -m pipeline.server`):

- Requests with 32 images, ours against the rival. Both servers get the same serialized tf.Examples over gRPC, and the
  two take turns. The second rival is OpenVINO in this process, on images that are preprocessed already, so it neither
  decodes nor resizes and talks to nobody: what the processor can do. It converts the same Keras model as the rival
  exports, because it has no conversion of DecodeImage and ScaleAndTranslate, which the exported SavedModel has.
- Clients that ask for one image at a time, in each of the four forms, with requests put together as `serve` does it.
  They are threads of this process, which needs a part of the same cores.
- The first request of a server after it has loaded the version, with and without the version's warm-up requests,
  against the median of the requests after it; the client is connected before.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from components.data import cifar10
from components.environment import choose_variables

os.environ.update(choose_variables())

import keras
import numpy as np
import numpy.typing as npt
import openvino as ov
import tensorflow as tf
import tensorflow_transform as tft

from benchmarks.evaluator import export_with_keras
from benchmarks.harness import Result, build_parser, describe_machine, divert_stdout, finish, make_folder, run_benchmark
from benchmarks.models import build_random_model, draw_pngs, make_example, write_transform_graph
from components import features
from components.data.sample import draw_image
from components.serving.model_servers import ModelServer
from components.serving.models_config import MODEL_NAME
from components.serving.server_files import Batching, choose_batching, write_files
from components.serving_check.component import WARMUP_FILE, check_model
from components.serving_check.config import ServingCheckConfig
from components.serving_check.questions import make_request
from components.serving_check.tf_serving import Client, run_server
from pipeline.serve import choose_server
from trainer.backbones import BACKBONES
from trainer.config import ExportConfig, TrainerConfig
from trainer.dataset import read_split
from trainer.device import has_cpu_bfloat16
from trainer.export import export_model
from trainer.inference_graph import Precision
from trainer.predictions import write_predictions

_BATCH = 32
_CLIENTS = (1, 4, 16)
_FORMS = {
    'bytes REST': (features.SIGNATURE_SERVING_DEFAULT, 'ask_rest'),
    'bytes gRPC': (features.SIGNATURE_SERVING_DEFAULT, 'ask_grpc'),
    'raw gRPC': (features.SIGNATURE_RAW, 'ask_grpc'),
    'tf.Example gRPC': (features.SIGNATURE_EXAMPLES, 'ask_grpc'),
}
_LATER_REQUESTS = 20  # after the first one

Array = npt.NDArray[Any]
Put = Callable[[str, dict[str, Any], Array], Any]


def draw_inputs(count: int) -> dict[str, Array]:
    """Draws sample images, and brings them into the form that each signature takes; [count, ...]."""
    random = np.random.default_rng(0)
    pngs, classes = draw_pngs(count), cifar10.CONTRACT.num_classes
    return {
        features.SIGNATURE_SERVING_DEFAULT: np.array(pngs, object),
        features.SIGNATURE_RAW: np.stack([draw_image(index % classes, random) for index in range(count)]),
        features.SIGNATURE_EXAMPLES: np.array([make_example(png, 0) for png in pngs], object),
    }


def export_ours(model: keras.Model, transform_output: tft.TFTransformOutput, folder: Path, precision: Precision) -> Any:
    """Exports a model as a run does, into folder/ours/1, with the warm-up requests that the serving check writes.

    Returns:
      The serving check's report, which has the latencies.
    """
    version = folder / 'ours' / '1'
    export_model(
        model,
        transform_output,
        str(version),
        ExportConfig(precision=precision, min_agreement=0),
        tf.data.Dataset.range(0),
        cifar10.CONTRACT,
    )
    with tf.io.TFRecordWriter(str(folder / 'val.gz'), options='GZIP') as writer:
        for png in draw_pngs(_BATCH):
            writer.write(make_example(png, 0))
    write_predictions(model, read_split([str(folder / 'val.gz')], transform_output), str(folder))
    warmup = folder / WARMUP_FILE
    report = check_model(version, folder / features.PREDICTIONS_FILE, warmup, ServingCheckConfig(server='off'))
    warmup.rename(version / 'assets.extra' / WARMUP_FILE)
    return report


def measure_load(asks: Sequence[Callable[[Array], Any]], images: Array) -> tuple[list[float], float]:
    """Has clients ask for one image at a time, all at once, until each image was asked for once.

    Args:
      asks: a client each; sends a batch and waits for the answer.
      images: what to ask with, [N, ...].

    Returns:
      The milliseconds of each request, and the seconds of the whole.
    """

    def run(ask: Callable[[Array], Any], share: Array) -> list[float]:
        times = []
        for row in range(len(share)):
            begin = time.perf_counter()
            ask(share[row : row + 1])
            times.append((time.perf_counter() - begin) * 1000)
        return times

    with ThreadPoolExecutor(len(asks)) as pool:
        begin = time.perf_counter()
        times = list(pool.map(run, asks, np.array_split(images, len(asks))))
        seconds = time.perf_counter() - begin
    return [each for share in times for each in share], seconds


def measure_forms(client: Client, inputs: dict[str, Array], request: dict[str, Any], rounds: int) -> dict[str, Result]:
    """Measures each form with each number of clients; the cells take turns in every round, after one that is not kept.

    Returns:
      By '<form>, <number> clients': p50, p95 and p99 in milliseconds over the requests of all rounds, and the median
      images/s of the rounds.
    """
    latencies: dict[str, list[float]] = {}
    speeds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        clients = [client.clone() for _ in range(max(_CLIENTS))]
        for each in clients:
            stack.callback(each.close)
            each.connect()
        for number in range(rounds + 1):
            for form, (signature, method) in _FORMS.items():
                for count in _CLIENTS:
                    asks = [_bind(getattr(each, method), signature, request) for each in clients[:count]]
                    times, seconds = measure_load(asks, inputs[signature])
                    if number:
                        name = f'{form}, {count} client{"s" if count > 1 else ""}'
                        latencies.setdefault(name, []).extend(times)
                        speeds.setdefault(name, []).append(len(times) / seconds)
    return {
        name: {
            **{f'p{share}_ms': float(np.percentile(times, share)) for share in (50, 95, 99)},
            'images_per_s': statistics.median(speeds[name]),
        }
        for name, times in latencies.items()
    }


def _bind(put: Put, signature: str, request: dict[str, Any]) -> Callable[[Array], Any]:
    return lambda batch: put(signature, request, batch)


def measure_start(server: ModelServer, versions: Path, images: Array, request: dict[str, Any], rounds: int) -> Result:
    """Starts a server again and again, with the version's warm-up requests and without, and asks it for single images.

    Returns:
      For 'warmed_up' and 'cold': milliseconds of the first request, of the median of those after it, and the ratio, as
      medians of the rounds.
    """
    measured: dict[str, list[tuple[float, float]]] = {'warmed_up': [], 'cold': []}
    for _ in range(rounds):
        for name, values in measured.items():
            flag = f'--enable_model_warmup={str(name == "warmed_up").lower()}'
            with run_server(server, versions, MODEL_NAME, [flag]) as client:
                client.connect()
                ask = _bind(client.ask_grpc, features.SIGNATURE_SERVING_DEFAULT, request)
                first, *others = measure_load([ask], images[: _LATER_REQUESTS + 1])[0]
            values.append((first, statistics.median(others)))
    return {
        name: {
            'first_ms': statistics.median(first for first, _ in values),
            'median_ms': statistics.median(later for _, later in values),
            'ratio': statistics.median(first / later for first, later in values),
        }
        for name, values in measured.items()
    }


def load_openvino(model: keras.Model, folder: Path, images: Array) -> tuple[Callable[[], Any], str]:
    """Converts the network for OpenVINO, for throughput.

    Args:
      model: The Keras model, preprocessed images -> probabilities.
      folder: To export the model to.
      images: Preprocessed, float32 [N, S, S, 3].

    Returns:
      A function that runs it on the images, and the precision that OpenVINO has chosen.
    """
    model.export(str(folder / 'network'), verbose=False)
    network = ov.convert_model(str(folder / 'network'))
    network.reshape([_BATCH, *images.shape[1:]])
    compiled = ov.Core().compile_model(network, 'CPU', {'PERFORMANCE_HINT': 'THROUGHPUT'})
    batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    queue = ov.AsyncInferQueue(compiled)

    def run() -> None:
        for batch in batches:
            queue.start_async([batch])
        queue.wait_all()

    return run, compiled.get_property('INFERENCE_PRECISION_HINT').to_string()


def measure_batches(
    server: ModelServer, folder: Path, examples: Array, request: dict[str, Any], rounds: int, network: Callable[[], Any]
) -> dict[str, Result]:
    """Measures requests with 32 images, ours against the plain Keras export, and against OpenVINO.

    Args:
      server: The small one.
      folder: Has the folders 'ours' and 'keras' of versions.
      examples: Serialized tf.Examples, a multiple of 32.
      request: See `components.serving_check.probe`.
      rounds: Number of rounds.
      network: Runs the network on as many images in OpenVINO.
    """
    batches = np.split(examples, len(examples) // _BATCH)

    def make_side(client: Client) -> Callable[[], Any]:
        ask = _bind(client.ask_grpc, features.SIGNATURE_EXAMPLES, request)
        return lambda: [ask(batch) for batch in batches]

    with ExitStack() as stack:
        ours, rival = (
            make_side(stack.enter_context(run_server(server, folder / name, MODEL_NAME))) for name in ('ours', 'keras')
        )
        text = f'{len(examples)} images in requests of {_BATCH} through the small server'
        return {
            'keras': run_benchmark(f'{text}, against a plain Keras export', ours, rival, rounds=rounds),
            'openvino': run_benchmark(f'{text}, against OpenVINO in process', ours, network, rounds=rounds),
        }


def prepare(options: Any, folder: Path, precision: Precision) -> tuple[Batching, Callable[[], Any], str]:
    """Makes the versions ours/1 and keras/1 in a folder, and the network for OpenVINO.

    Returns:
      How `serve` would put requests together, a function that runs the network on whole batches of images, and the
      precision that OpenVINO has chosen.
    """
    config = TrainerConfig(weights='none', backbone=options.backbone, image_size=options.image_size)
    size = config.get_image_size()
    transform_output = write_transform_graph(str(folder / 'transform'), size, backbone=config.backbone)
    model = build_random_model(config)
    report = export_ours(model, transform_output, folder, precision)
    export_with_keras(model, transform_output, str(folder / 'keras' / '1'))
    transform = tf.saved_model.load(str(folder / 'ours' / '1')).signatures[features.SIGNATURE_TRANSFORM]
    examples = draw_inputs(_count_batched(options))[features.SIGNATURE_EXAMPLES]
    images = transform(examples=tf.constant(examples))[features.IMAGE_XF_KEY].numpy()
    batching = choose_batching(report.batch_ms, len(os.sched_getaffinity(0)))
    return batching, *load_openvino(model, folder, images)


def _count_batched(options: Any) -> int:
    """Returns how many images are asked for in whole batches."""
    return max(options.images // _BATCH, 1) * _BATCH


def main() -> None:
    """Runs the command line."""
    parser = build_parser('The exported model in the small server, against a plain Keras export there', images=64)
    parser.add_argument('--backbone', choices=BACKBONES, default='resnet50', help='the network')
    parser.add_argument('--image-size', type=int, help="height and width in pixels; the backbone's own if not given")
    options = parser.parse_args()
    print(describe_machine(), flush=True)
    precision: Precision = 'bfloat16' if has_cpu_bfloat16() else 'float32'
    request, server = make_request('', '', ServingCheckConfig()), choose_server('small')
    inputs = draw_inputs(options.images)
    with make_folder() as folder:
        with divert_stdout():
            batching, network, openvino_precision = prepare(options, folder, precision)
        print(f'{options.backbone}, {precision}; OpenVINO {openvino_precision}; {batching.to_sentence()}', flush=True)
        examples = draw_inputs(_count_batched(options))[features.SIGNATURE_EXAMPLES]
        batches = measure_batches(server, folder, examples, request, options.rounds, network)
        single = inputs[features.SIGNATURE_SERVING_DEFAULT]
        start = measure_start(server, folder / 'ours', single, request, options.rounds)
        for name, each in start.items():
            print(f'  {name}: first request {each["first_ms"]:.1f} ms, median of the next {each["median_ms"]:.1f} ms')
        files = folder / 'files'
        files.mkdir()
        flags = write_files(files, folder / 'ours', batching)
        flags = [flag for flag in flags if not flag.startswith('--model_config')]  # run_server names the model itself
        with run_server(server, folder / 'ours', MODEL_NAME, flags) as client:
            load = measure_forms(client, inputs, request, options.rounds)
    for name, each in load.items():
        print(f'  {name}: ' + ', '.join(f'{key} {value:.1f}' for key, value in each.items()))
    finish(
        {
            **batches['keras'],
            'images': _count_batched(options),
            'precision': precision,
            'openvino': batches['openvino'],
            'openvino_precision': openvino_precision,
            'start': start,
            'load': load,
        }
    )


if __name__ == '__main__':
    main()
