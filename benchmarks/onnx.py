"""The ONNX model in ONNX Runtime (ours), against the SavedModel that it lies in (the rival), in one process.

    python -m benchmarks.onnx [--rounds N] [--images N]

The model is ResNet50 at 224 pixels with the recipe's head, random weights, and BatchNorm statistics as after training.
Both get the same raw pixels. The SavedModel is measured in bfloat16 too if the CPU has it; the ONNX model computes in
float32.
"""

import os
import tempfile
from typing import Any

from components.data import cifar10
from components.environment import choose_variables

os.environ.update(choose_variables())

import numpy as np
import numpy.typing as npt
import onnxruntime
import tensorflow as tf

from benchmarks.harness import Result, build_parser, describe_machine, finish, run_benchmark
from benchmarks.models import build_random_model, draw_pngs, write_transform_graph
from components import features
from trainer.config import ExportConfig, TrainerConfig
from trainer.device import has_cpu_bfloat16
from trainer.export import export_model
from trainer.inference_graph import Precision
from trainer.onnx_export import convert_model

_BATCHES = (1, 32)


def measure_model(name: str, session: Any, rival: Any, images: npt.NDArray[np.uint8], rounds: int) -> dict[str, Result]:
    """Measures an ONNX Runtime session and a loaded SavedModel with each batch size.

    Returns:
      The results by '<name>_batch_<size>', with the share of images that get the same label from both.
    """
    classify = rival.signatures[features.SIGNATURE_RAW]
    results: dict[str, Result] = {}
    for size in _BATCHES:
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        tensors = [tf.constant(batch) for batch in batches]

        def run_ours(batches: list[npt.NDArray[np.uint8]] = batches) -> npt.NDArray[np.int64]:
            return np.concatenate([session.run([features.OUTPUT_LABEL], {'image': batch})[0] for batch in batches])

        def run_rival(tensors: list[tf.Tensor] = tensors) -> npt.NDArray[np.int64]:
            return np.concatenate([classify(image=batch)[features.OUTPUT_LABEL].numpy() for batch in tensors])

        agreement = float(np.mean(run_ours() == run_rival()))
        results[f'{name}_batch_{size}'] = run_benchmark(
            f'ONNX against a SavedModel in {name}, {len(images)} images in batches of {size}',
            run_ours,
            run_rival,
            rounds=rounds,
            agreement=agreement,
        )
    return results


def main() -> None:
    """Runs the command line."""
    options = build_parser('The ONNX model in ONNX Runtime, against the SavedModel', images=64).parse_args()
    print(describe_machine(), flush=True)
    config = TrainerConfig(weights='none')
    images = np.stack([tf.io.decode_png(png).numpy() for png in draw_pngs(options.images)])
    names: list[Precision] = ['float32', 'bfloat16'] if has_cpu_bfloat16() else ['float32']
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as folder:
        transform_output = write_transform_graph(f'{folder}/transform', config.get_image_size())
        model = build_random_model(config)
        serialized = convert_model(model, config, cifar10.CONTRACT).SerializeToString()
        session = onnxruntime.InferenceSession(serialized, providers=['CPUExecutionProvider'])
        for name in names:
            # The agreement of bfloat16 is part of the result; with random weights it must not stop the export.
            export = ExportConfig(precision=name, min_agreement=0)
            export_model(
                model, transform_output, f'{folder}/{name}', export, tf.data.Dataset.range(0), cifar10.CONTRACT
            )
            rival = tf.saved_model.load(f'{folder}/{name}')
            results |= measure_model(name, session, rival, images, options.rounds)
    if len(names) == 1:
        print('bfloat16 was not measured, because this CPU has neither avx512_bf16 nor amx_bf16.')
    headline = f'float32_batch_{_BATCHES[-1]}'
    finish({**results.pop(headline), 'headline': headline, **results})


if __name__ == '__main__':
    main()
