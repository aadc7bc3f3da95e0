"""TFX's stock Evaluator pipeline on the exported SavedModel, against one of Keras' ExportArchive.

    python -m benchmarks.evaluator [--rounds N] [--images N]

Both are evaluated by the Beam pipeline that tfx/components/evaluator/executor.py runs, with the pipeline's own
EvalConfig, on the same TFRecord. The network is ResNet50 with the recipe's head at its own image size, random weights.
"""

import os
import tempfile
from collections.abc import Callable

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import apache_beam as beam
import keras
import tensorflow as tf
import tfx  # noqa: F401  (before tensorflow_model_analysis, whose dependencies lack a module that TFX replaces)

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


def export_with_keras(model: keras.Model, transform_output, out: str) -> None:
    """The model with an `examples` signature through the Transform graph, the way Keras 3 documents."""
    spec = {features.IMAGE_KEY: transform_output.raw_feature_spec()[features.IMAGE_KEY]}
    transform = transform_output.transform_features_layer()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
    def serve_examples(examples):
        images = transform(tf.io.parse_example(examples, spec))[features.IMAGE_XF_KEY]
        return {features.OUTPUT_PROBABILITIES: model(images, training=False)}

    archive = keras.export.ExportArchive()
    archive.track(transform)
    archive.add_endpoint(features.SIGNATURE_EXAMPLES, serve_examples)
    archive.write_out(out, verbose=False)


def make_evaluation(saved_model: str, records: str, out: str) -> Callable[[], float]:
    """A function that evaluates once and returns the accuracy."""
    eval_config = tfma.utils.update_eval_config_with_defaults(make_eval_config(), has_baseline=False, rubber_stamp=True)

    def evaluate() -> float:
        # Loaded each time, as each run of the component does.
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
        return read_metrics(out)[None][ACCURACY]

    return evaluate


def main() -> None:
    options = build_parser(
        "TFX's Evaluator pipeline on the exported SavedModel against a plain Keras export", images=1000
    ).parse_args()
    print(describe_machine(), flush=True)
    config = TrainerConfig(weights='none')
    precision = 'bfloat16' if has_cpu_bfloat16() else 'float32'
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
        accuracies = {'accuracy_ours': ours(), 'accuracy_rival': rival()}
        title = f'evaluation of {options.images} images, {precision} against Keras float32'
        finish(run_benchmark(title, ours, rival, rounds=options.rounds, precision=precision, **accuracies))


if __name__ == '__main__':
    main()
