"""The exported SavedModel against a plain `model.export()` of Keras, both loaded in one process.

    python -m benchmarks.export [--rounds N] [--images N]

ResNet50 with the recipe's head at its own image size, random weights with BatchNorm statistics as after training.
Ours is called with PNG bytes and decodes and resizes them; the rival gets images that are already preprocessed, so
that the ratio understates ours. bfloat16 is measured where this CPU has it.
"""

import os
import tempfile

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import numpy as np
import tensorflow as tf

from benchmarks.harness import build_parser, describe_machine, finish, run_benchmark
from benchmarks.models import build_random_model, draw_pngs, make_example, write_transform_graph
from components import features
from trainer.config import ExportConfig, TrainerConfig
from trainer.device import has_cpu_bfloat16
from trainer.export import export_model

_BATCHES = (1, 32)


def preprocess_pngs(model, pngs: list[bytes]) -> tf.Tensor:
    """float32 [N, S, S, 3] by the SavedModel's own Transform graph."""
    examples = tf.constant([make_example(png, 0) for png in pngs])
    return model.signatures[features.SIGNATURE_TRANSFORM](examples=examples)[features.IMAGE_XF_KEY]


def measure_model(name: str, ours, rival, pngs: list[bytes], rounds: int) -> dict[str, dict]:
    """Time a batch of each size, and top-1 agreement: results by '<name>_batch_<size>'."""
    classify = ours.signatures[features.SIGNATURE_SERVING_DEFAULT]
    serve = rival.signatures[features.SIGNATURE_SERVING_DEFAULT]
    (argument,) = serve.structured_input_signature[1]
    results = {}
    for size in _BATCHES:
        batches = [pngs[start : start + size] for start in range(0, len(pngs), size)]
        encoded = [tf.constant(batch) for batch in batches]
        preprocessed = [preprocess_pngs(ours, batch) for batch in batches]

        def run_ours(encoded=encoded):
            return np.concatenate([classify(image=batch)[features.OUTPUT_LABEL].numpy() for batch in encoded])

        def run_rival(preprocessed=preprocessed):
            outputs = [next(iter(serve(**{argument: batch}).values())).numpy() for batch in preprocessed]
            return np.concatenate(outputs).argmax(axis=1)

        agreement = float(np.mean(run_ours() == run_rival()))
        results[f'{name}_batch_{size}'] = run_benchmark(
            f'{name}, {len(pngs)} images in batches of {size}', run_ours, run_rival, rounds=rounds, agreement=agreement
        )
    return results


def main() -> None:
    options = build_parser('The exported SavedModel against a plain Keras export', images=64).parse_args()
    print(describe_machine(), flush=True)
    config = TrainerConfig(weights='none')
    pngs = draw_pngs(options.images)
    names = ['float32', 'bfloat16'] if has_cpu_bfloat16() else ['float32']
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        transform_output = write_transform_graph(f'{folder}/transform', config.get_image_size())
        model = build_random_model(config)
        model.export(f'{folder}/rival', verbose=False)
        rival = tf.saved_model.load(f'{folder}/rival')
        for name in names:
            # What bfloat16 agrees to is reported below; random weights are no reason to stop.
            export = ExportConfig(precision=name, min_agreement=0)
            export_model(model, transform_output, f'{folder}/{name}', export, tf.data.Dataset.range(0))
            results |= measure_model(name, tf.saved_model.load(f'{folder}/{name}'), rival, pngs, options.rounds)
    if len(names) == 1:
        print('This CPU has neither avx512_bf16 nor amx_bf16: bfloat16 was not measured.')
    headline = f'{names[-1]}_batch_{_BATCHES[-1]}'
    finish({**results.pop(headline), 'headline': headline, **results})


if __name__ == '__main__':
    main()
