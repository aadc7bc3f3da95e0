"""The command `predict` on files (ours), against the model alone on batches in memory (the rival), in one process.

    python -m benchmarks.predict [--rounds N] [--images N] [--model DIR]

Ours also reads the files, looks at their sizes, and writes JSON lines. The rival calls `serving_default` on batches of
the same size, one after the other. Neither has the imports and the loading in its time. Without --model, the model is
ResNet50 at 224 pixels with random weights, in bfloat16 if the CPU has it.
"""

import io
import os
from pathlib import Path

from components.data import cifar10
from components.environment import choose_variables

os.environ.update(choose_variables())

import tensorflow as tf

from benchmarks.harness import build_parser, describe_machine, finish, make_folder, run_benchmark
from benchmarks.models import build_random_model, draw_pngs, write_transform_graph
from components import features
from components.saved_model import skip_costly_passes
from pipeline.classifier import Classifier
from pipeline.image_sources import find_sources
from pipeline.loaded_model import LoadedModel
from pipeline.local_model import choose_version
from pipeline.predict import Output, predict
from pipeline.reporter import Reporter
from trainer.config import ExportConfig, TrainerConfig
from trainer.device import has_cpu_bfloat16
from trainer.export import export_model


def export_random_model(folder: Path) -> Path:
    """Exports the model that is measured if none is named; its random weights do not matter to the time."""
    config = TrainerConfig(weights='none')
    transform_output = write_transform_graph(str(folder / 'transform'), config.get_image_size())
    precision = 'bfloat16' if has_cpu_bfloat16() else 'float32'
    export = ExportConfig(precision=precision, min_agreement=0)
    nothing = tf.data.Dataset.range(0)
    export_model(build_random_model(config), transform_output, str(folder / 'model'), export, nothing, cifar10.CONTRACT)
    return folder / 'model'


def main() -> None:
    """Runs the command line."""
    parser = build_parser('The command predict on files, against its model alone on batches in memory', images=1000)
    parser.add_argument('--model', type=Path, help='a serving folder, or a version in it')
    options = parser.parse_args()
    print(describe_machine(), flush=True)
    with make_folder() as folder:
        version = choose_version(options.model) if options.model else export_random_model(folder)
        model = LoadedModel(version, str(version))
        images = draw_pngs(options.images)
        files = folder / 'images'
        files.mkdir()
        for number, image in enumerate(images):
            (files / f'{number:06}.png').write_bytes(image)
        asked, batch_size = find_sources([str(files)]), model.batch_size
        signature = skip_costly_passes(tf.saved_model.load(str(version)).signatures[features.SIGNATURE_SERVING_DEFAULT])

        def run_ours() -> None:
            with open(os.devnull, 'w') as stream:
                predict(Classifier(model), asked, Output('json', 0, None), stream, Reporter(io.StringIO()))

        def run_rival() -> None:
            for begin in range(0, len(images), batch_size):
                signature(image=tf.constant(images[begin : begin + batch_size]))[features.OUTPUT_LABEL].numpy()

        title = f'{options.images:,} images in batches of {batch_size}'
        finish(run_benchmark(title, run_ours, run_rival, rounds=options.rounds, images=options.images))


if __name__ == '__main__':
    main()
