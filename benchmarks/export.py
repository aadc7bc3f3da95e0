"""Predicting with the exported SavedModel (ours), against one of Keras' `model.export()` (the rival), in one process.

    python -m benchmarks.export [--rounds N] [--images N]

The model is ResNet50 at 224 pixels with the recipe's head, random weights, and BatchNorm statistics as after training.
Ours is called with PNG bytes, which it decodes and resizes; the rival gets images that are already preprocessed. So the
ratio understates ours. bfloat16 is measured if the CPU has it.
"""

import os
import tempfile
from typing import Any

from components.data import cifar10
from components.environment import choose_variables

os.environ.update(choose_variables())

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.harness import Result, build_parser, describe_machine, finish, run_benchmark
from benchmarks.models import build_random_model, draw_pngs, make_example, write_transform_graph
from components import features
from trainer.config import ExportConfig, TrainerConfig
from trainer.device import has_cpu_bfloat16
from trainer.export import export_model
from trainer.inference_graph import Precision

_BATCHES = (1, 32)


def preprocess_pngs(model: Any, pngs: list[bytes]) -> tf.Tensor:
    """Preprocesses images, float32 [N, S, S, 3], with the Transform graph of a loaded SavedModel."""
    examples = tf.constant([make_example(png, 0) for png in pngs])
    return model.signatures[features.SIGNATURE_TRANSFORM](examples=examples)[features.IMAGE_XF_KEY]


def measure_model(name: str, ours: Any, rival: Any, pngs: list[bytes], rounds: int) -> dict[str, Result]:
    """Measures two loaded SavedModels with each batch size, and the share of images with the same prediction.

    Returns:
      The results by '<name>_batch_<size>'.
    """
    classify = ours.signatures[features.SIGNATURE_SERVING_DEFAULT]
    serve = rival.signatures[features.SIGNATURE_SERVING_DEFAULT]
    (argument,) = serve.structured_input_signature[1]
    results: dict[str, Result] = {}
    for size in _BATCHES:
        batches = [pngs[start : start + size] for start in range(0, len(pngs), size)]
        encoded = [tf.constant(batch) for batch in batches]
        preprocessed = [preprocess_pngs(ours, batch) for batch in batches]

        def run_ours(encoded: list[tf.Tensor] = encoded) -> npt.NDArray[np.int64]:
            return np.concatenate([classify(image=batch)[features.OUTPUT_LABEL].numpy() for batch in encoded])

        def run_rival(preprocessed: list[tf.Tensor] = preprocessed) -> npt.NDArray[np.int64]:
            outputs = [next(iter(serve(**{argument: batch}).values())).numpy() for batch in preprocessed]
            predicted: npt.NDArray[np.int64] = np.concatenate(outputs).argmax(axis=1)
            return predicted

        agreement = float(np.mean(run_ours() == run_rival()))
        results[f'{name}_batch_{size}'] = run_benchmark(
            f'{name}, {len(pngs)} images in batches of {size}', run_ours, run_rival, rounds=rounds, agreement=agreement
        )
    return results


def main() -> None:
    """Runs the command line."""
    options = build_parser('Predicting with our SavedModel, against a plain Keras export', images=64).parse_args()
    print(describe_machine(), flush=True)
    config = TrainerConfig(weights='none')
    pngs = draw_pngs(options.images)
    names: list[Precision] = ['float32', 'bfloat16'] if has_cpu_bfloat16() else ['float32']
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as folder:
        transform_output = write_transform_graph(f'{folder}/transform', config.get_image_size())
        model = build_random_model(config)
        model.export(f'{folder}/rival', verbose=False)
        rival = tf.saved_model.load(f'{folder}/rival')
        for name in names:
            # The agreement of bfloat16 is part of the result; with random weights it must not stop the export.
            export = ExportConfig(precision=name, min_agreement=0)
            export_model(
                model, transform_output, f'{folder}/{name}', export, tf.data.Dataset.range(0), cifar10.CONTRACT
            )
            results |= measure_model(name, tf.saved_model.load(f'{folder}/{name}'), rival, pngs, options.rounds)
    if len(names) == 1:
        print('bfloat16 was not measured, because this CPU has neither avx512_bf16 nor amx_bf16.')
    headline = f'{names[-1]}_batch_{_BATCHES[-1]}'
    finish({**results.pop(headline), 'headline': headline, **results})


if __name__ == '__main__':
    main()
