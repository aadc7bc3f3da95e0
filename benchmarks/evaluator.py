"""Evaluating the exported SavedModel (ours), against one that Keras' ExportArchive writes (the rival).

    python -m benchmarks.evaluator [--rounds N] [--images N]

Both are evaluated on the same TFRecord, by the Beam pipeline that tfx/components/evaluator/executor.py runs, with our
pipeline's EvalConfig. The model is ResNet50 at 224 pixels with the recipe's head and random weights.
"""

import os
import tempfile
from collections.abc import Callable

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import apache_beam as beam
import keras
import tensorflow as tf
import tensorflow_transform as tft
import tfx  # noqa: F401  (first, because TFX provides a module that tensorflow_model_analysis needs)

import tensorflow_model_analysis as tfma  # isort: skip
from apache_beam.options.pipeline_options import PipelineOptions
from tfx_bsl.public import tfxio

from benchmarks.harness import build_parser, describe_machine, finish, run_benchmark
from benchmarks.models import build_random_model, draw_pngs, make_example, write_transform_graph
from components import features
from components.model_gate.eval_config import make_eval_config
from components.model_gate.metrics import ACCURACY, read_metrics
from pipeline.config import BeamConfig
from trainer.config import ExportConfig, TrainerConfig
from trainer.device import has_cpu_bfloat16
from trainer.export import export_model
from trainer.inference_graph import Precision


def export_with_keras(model: keras.Model, transform_output: tft.TFTransformOutput, out: str) -> None:
    """Exports the model as Keras 3 documents it, with an `examples` signature that runs the Transform graph."""
    spec = {features.IMAGE_KEY: transform_output.raw_feature_spec()[features.IMAGE_KEY]}
    transform = transform_output.transform_features_layer()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
    def serve_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        images = transform(tf.io.parse_example(examples, spec))[features.IMAGE_XF_KEY]
        return {features.OUTPUT_PROBABILITIES: model(images, training=False)}

    archive = keras.export.ExportArchive()
    archive.track(transform)
    archive.add_endpoint(features.SIGNATURE_EXAMPLES, serve_examples)
    archive.write_out(out, verbose=False)


def make_evaluation(saved_model: str, records: str, out: str) -> Callable[[], float]:
    """Makes a function that evaluates a SavedModel once and returns its accuracy."""
    eval_config = tfma.utils.update_eval_config_with_defaults(make_eval_config(), has_baseline=False, rubber_stamp=True)

    def evaluate() -> float:
        # The model is loaded every time, as in every run of the component.
        shared_model = tfma.default_eval_shared_model(
            eval_saved_model_path=saved_model, model_name='', eval_config=eval_config
        )
        source = tfxio.TFExampleRecord(
            records, raw_record_column_name=tfma.ARROW_INPUT_COLUMN, telemetry_descriptors=['benchmark']
        )
        with beam.Pipeline(options=PipelineOptions(list(BeamConfig().args))) as pipeline:
            examples = pipeline | source.BeamSource()
            _ = examples | tfma.ExtractEvaluateAndWriteResults(
                eval_shared_model=shared_model, eval_config=eval_config, output_path=out
            )
        accuracy: float = read_metrics(out)[None][ACCURACY]
        return accuracy

    return evaluate


def main() -> None:
    """Runs the command line."""
    options = build_parser(
        "TFX's Evaluator on the exported SavedModel, against a plain Keras export", images=1000
    ).parse_args()
    print(describe_machine(), flush=True)
    config = TrainerConfig(weights='none')
    precision: Precision = 'bfloat16' if has_cpu_bfloat16() else 'float32'
    with tempfile.TemporaryDirectory() as folder:
        records = f'{folder}/test.gz'
        with tf.io.TFRecordWriter(records, options='GZIP') as writer:
            for index, png in enumerate(draw_pngs(options.images)):
                writer.write(make_example(png, index % features.NUM_CLASSES))
        transform_output = write_transform_graph(f'{folder}/transform', config.get_image_size())
        model = build_random_model(config)
        export_with_keras(model, transform_output, f'{folder}/keras')
        export = ExportConfig(precision=precision, min_agreement=0)
        export_model(model, transform_output, f'{folder}/ours', export, tf.data.Dataset.range(0))
        ours, rival = (
            make_evaluation(f'{folder}/{name}', records, f'{folder}/{name}_out') for name in ('ours', 'keras')
        )
        result = run_benchmark(
            f'evaluation of {options.images} images, {precision} against Keras float32',
            ours,
            rival,
            rounds=options.rounds,
            precision=precision,
            accuracy_ours=ours(),
            accuracy_rival=rival(),
        )
        finish(result)


if __name__ == '__main__':
    main()
