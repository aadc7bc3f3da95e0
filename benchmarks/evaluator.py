"""The Evaluator (ours), against TFMA running the same exported model (the rival), as the Evaluator once did.

    python -m benchmarks.evaluator [--rounds N] [--images N] [--rival as-it-was|keras] [--baseline]

Ours predicts the images first and has TFMA compute the metrics from the predictions. The rivals are the Beam pipeline
that tfx/components/evaluator/executor.py runs, in which TFMA runs the model: `as-it-was` on the very same SavedModel,
`keras` on the one that Keras' ExportArchive writes. With --baseline both sides also compare the model with a baseline,
whose predictions ours finds kept with it. Then the exported graph is measured alone, for the share of its throughput
that ours reaches. The model is ResNet50 at 224 pixels with the recipe's head and random
weights.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from components.data import cifar10
from components.environment import choose_variables

os.environ.update(choose_variables())

import apache_beam as beam
import keras
import tensorflow as tf
import tensorflow_transform as tft
import tfx  # first, because TFX provides a module that tensorflow_model_analysis needs

import tensorflow_model_analysis as tfma  # isort: skip
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.types import standard_artifacts
from tfx.utils import path_utils, proto_utils
from tfx_bsl.public import tfxio

from benchmarks.harness import build_parser, describe_machine, finish, run_benchmark
from benchmarks.models import build_random_model, draw_pngs, make_example, write_transform_graph
from components import features
from components.baseline import BASELINE_FILE, Baseline, BaselineInfo
from components.model_gate.component import Executor
from components.model_gate.config import GateConfig
from components.model_gate.eval_config import make_eval_config
from components.model_gate.metrics import ACCURACY, Metrics, read_metrics
from components.model_gate.predictions import predict_records, read_records, write_predictions
from components.serving.versions import PREDICTIONS_FILE
from pipeline.config import BeamConfig
from trainer.config import ExportConfig, TrainerConfig
from trainer.device import has_cpu_bfloat16
from trainer.export import export_model
from trainer.inference_graph import Precision

_GRAPH_BATCH_SIZES = (8, 32)  # the graph's own throughput is that with the faster one


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


def evaluate_with_tfma(saved_models: list[str], file_pattern: str, out: str) -> Metrics:
    """Evaluates SavedModels as TFX's own Evaluator does: TFMA runs the models, batch by batch.

    Args:
      saved_models: Folder of the model, and then, if there is one, that of its baseline.
      file_pattern: Glob of GZIP TFRecord files.
      out: Folder for TFMA's results.
    """
    eval_config = make_eval_config()
    # Without a type, TFMA first tries to load the SavedModel as a Keras model, which fails.
    spec = tfma.ModelSpec(
        model_type='tf_generic',
        signature_name=features.SIGNATURE_EXAMPLES,
        prediction_key=features.OUTPUT_PROBABILITIES,
        label_key=features.LABEL_KEY,
    )
    eval_config.model_specs[0].CopyFrom(spec)
    eval_config = tfma.utils.update_eval_config_with_defaults(
        eval_config, has_baseline=len(saved_models) > 1, rubber_stamp=True
    )
    # The models are loaded every time, as in every run of the component.
    shared_models = [
        tfma.default_eval_shared_model(eval_saved_model_path=path, model_name=spec.name, eval_config=eval_config)
        for path, spec in zip(saved_models, eval_config.model_specs, strict=True)
    ]
    source = tfxio.TFExampleRecord(
        file_pattern, raw_record_column_name=tfma.ARROW_INPUT_COLUMN, telemetry_descriptors=['benchmark']
    )
    with beam.Pipeline(options=PipelineOptions(BeamConfig().options)) as pipeline:
        examples = pipeline | source.BeamSource()
        _ = examples | tfma.ExtractEvaluateAndWriteResults(
            eval_shared_model=shared_models if len(shared_models) > 1 else shared_models[0],
            eval_config=eval_config,
            output_path=out,
        )
    return read_metrics(out)


def evaluate_with_executor(folder: Path) -> Metrics:
    """Runs the Evaluator's executor on the artifacts `examples`, `model` and `baseline` in a folder."""

    def make_artifact(kind: Callable[[], tfx.types.Artifact], name: str) -> tfx.types.Artifact:
        artifact = kind()
        artifact.uri = str(folder / name)
        Path(artifact.uri).mkdir(exist_ok=True)
        return artifact

    examples = make_artifact(standard_artifacts.Examples, 'examples')
    examples.split_names = json.dumps([features.TEST_SPLIT])
    evaluation = make_artifact(standard_artifacts.ModelEvaluation, 'evaluation')
    context = Executor.Context(beam_pipeline_args=BeamConfig().options, tmp_dir=str(folder), unique_id='1')
    Executor(context).Do(
        {
            'examples': [examples],
            'model': [make_artifact(standard_artifacts.Model, 'model')],
            'baseline': [make_artifact(Baseline, 'baseline')],
        },
        {'evaluation': [evaluation], 'blessing': [make_artifact(standard_artifacts.ModelBlessing, 'blessing')]},
        {
            'eval_config': proto_utils.proto_to_json(make_eval_config()),
            'example_splits': json.dumps([features.TEST_SPLIT]),
            'gate': GateConfig().to_json(),
        },
    )
    return read_metrics(evaluation.uri)


def prepare(folder: Path, images: int, precision: Precision, *, with_baseline: bool) -> dict[str, str]:
    """Makes the test split, the models and the artifacts of `evaluate_with_executor`.

    Returns:
      The folders of the SavedModels by the name of the rival, the baseline's as 'baseline', and the glob 'records'.
    """
    split = folder / 'examples' / f'Split-{features.TEST_SPLIT}'
    split.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(split / 'test.gz'), options='GZIP') as writer:
        for index, png in enumerate(draw_pngs(images)):
            writer.write(make_example(png, index % cifar10.CONTRACT.num_classes))
    config = TrainerConfig(weights='none')
    transform_output = write_transform_graph(str(folder / 'transform'), config.get_image_size())
    model = build_random_model(config)
    paths = {
        'as-it-was': path_utils.serving_model_dir(str(folder / 'model')),
        'baseline': path_utils.serving_model_dir(str(folder / 'baseline')),
        'keras': str(folder / 'keras'),
    }
    export_with_keras(model, transform_output, paths['keras'])
    export = ExportConfig(precision=precision, min_agreement=0)
    export_model(model, transform_output, paths['as-it-was'], export, tf.data.Dataset.range(0), cifar10.CONTRACT)
    records = str(split / '*')
    (folder / 'baseline').mkdir()
    (folder / 'baseline' / BASELINE_FILE).write_text(json.dumps(BaselineInfo(1 if with_baseline else None)._asdict()))
    if with_baseline:
        export_model(model, transform_output, paths['baseline'], export, tf.data.Dataset.range(0), cifar10.CONTRACT)
        read = read_records([records])
        kept = predict_records(paths['baseline'], read, 'the baseline')
        write_predictions(Path(paths['baseline']) / PREDICTIONS_FILE, read, kept)
    return {**paths, 'records': records}


def make_graph_run(saved_model: str, file_pattern: str, batch_size: int) -> Callable[[], None]:
    """Makes a function that sends all records through the exported graph, loaded and warm, and no more."""
    records = read_records([file_pattern]).serialized
    predict = tf.saved_model.load(saved_model).signatures[features.SIGNATURE_EXAMPLES]

    def run() -> None:
        for start in range(0, len(records), batch_size):
            predict(tf.constant(records[start : start + batch_size]))

    return run


def main() -> None:
    """Runs the command line."""
    parser = build_parser("The Evaluator's executor, against TFMA running the model itself", images=2000)
    parser.add_argument('--rival', choices=('as-it-was', 'keras'), default='as-it-was', help='what TFMA runs')
    parser.add_argument('--baseline', action='store_true', help='compare the model with a baseline too')
    options = parser.parse_args()
    print(describe_machine(), flush=True)
    precision: Precision = 'bfloat16' if has_cpu_bfloat16() else 'float32'
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = prepare(folder, options.images, precision, with_baseline=options.baseline)
        rivals = [paths[options.rival], *([paths['baseline']] if options.baseline else [])]
        accuracy: dict[str, float] = {}

        def ours() -> None:
            accuracy['accuracy_ours'] = evaluate_with_executor(folder)[None][ACCURACY]

        def rival() -> None:
            metrics = evaluate_with_tfma(rivals, paths['records'], str(folder / 'out'))
            accuracy['accuracy_rival'] = metrics[None][ACCURACY]

        text = f'evaluation of {options.images} images, {precision}, against {options.rival}'
        result = run_benchmark(text, ours, rival, rounds=options.rounds, precision=precision)
        graph = run_benchmark(
            f'the graph alone, {_GRAPH_BATCH_SIZES[0]} images at a time (ours) and {_GRAPH_BATCH_SIZES[1]} (rival)',
            *(make_graph_run(paths['as-it-was'], paths['records'], size) for size in _GRAPH_BATCH_SIZES),
            rounds=options.rounds,
        )
        fastest = min(graph['ours'], graph['rival'])
        print(
            f'  the graph alone: {options.images / fastest:.1f} images/s; ours: {options.images / result["ours"]:.1f}'
        )
        finish({**result, **accuracy, 'graph': fastest, 'share_of_graph': fastest / result['ours']})


if __name__ == '__main__':
    main()
