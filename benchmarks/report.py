"""Writing a report of many test images beside predictions that exist: seconds, and megabytes of the page.

    python -m benchmarks.report [--rounds N] [--images N] [--size PIXELS]

The images are JPEGs of smooth noise, and the predictions are drawn so that a tenth is wrong; both are written before
the time begins. Nothing is evaluated. There is no trained network, so Grad-CAM is left out; it takes as long for
10,000 images as for 100, because it is computed for the mistakes that the page shows. No rival is known that writes
such a page.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path


def write_artifacts(root: Path, images: int, size: int) -> dict[str, Path]:
    """Writes a test split and the Evaluator's predictions on it; returns the artifacts as `Folders` has them.

    Args:
      root: an empty folder.
      images: number of images.
      size: their height and width in pixels.
    """
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    from components import features
    from components.data import cifar10
    from components.image_statistics import measure_images
    from components.model_gate.predictions import find_right, read_images, read_records, write_predictions
    from components.model_gate.slices import measure_slices, write_slices

    examples, evaluation = root / 'examples', root / 'evaluation'
    split = examples / f'Split-{features.TEST_SPLIT}'
    split.mkdir(parents=True)
    evaluation.mkdir()
    random = np.random.default_rng(0)
    with tf.io.TFRecordWriter(str(split / 'data.gz'), 'GZIP') as writer:
        for number in range(images):
            small = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
            out = io.BytesIO()
            small.resize((size, size), Image.Resampling.BICUBIC).save(out, 'JPEG', quality=90)
            example = tf.train.Example()
            example.features.feature[features.IMAGE_KEY].bytes_list.value.append(out.getvalue())
            example.features.feature[features.LABEL_KEY].int64_list.value.append(number % cifar10.CONTRACT.num_classes)
            example.features.feature[features.ID_KEY].bytes_list.value.append(f'test_{number:05}'.encode())
            writer.write(example.SerializeToString())
    records = read_records([str(split / '*.gz')])
    scores = random.normal(size=(images, cifar10.CONTRACT.num_classes))
    scores[np.arange(images), records.labels] += 3.2
    probabilities = (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype(np.float32)
    write_predictions(evaluation / 'test_predictions.npz', records, probabilities)
    measured = measure_images(read_images(records), cifar10.CONTRACT.image_size)
    write_slices(evaluation, measure_slices(measured, find_right(probabilities, records.labels)))
    return {'ImportExampleGen.examples': examples, 'Evaluator.evaluation': evaluation}


def main(argv: list[str]) -> None:
    """Measures, and prints each round, the median, and the size of the page."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.report', description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--images', type=int, default=10_000)
    parser.add_argument('--size', type=int, default=160)
    arguments = parser.parse_args(argv)
    from pipeline.report.folders import Folders
    from pipeline.report.report import make_report

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folders = Folders(write_artifacts(root, arguments.images, arguments.size), 'benchmark', 'benchmark')
        page, rounds = root / 'report.html', []
        for number in range(1, arguments.rounds + 1):
            begin = time.perf_counter()
            figures = make_report(folders, page)
            rounds.append(time.perf_counter() - begin)
            print(f'round {number}: {rounds[-1]:.2f} s')
        assert figures.test is not None
        print(f'{arguments.images:,} images of {arguments.size} pixels, accuracy {figures.test.accuracy.value:.3f}')
        print(
            f'median of {arguments.rounds} rounds: {statistics.median(rounds):.2f} s, '
            f'page {page.stat().st_size / 1e6:.2f} MB'
        )


if __name__ == '__main__':
    main(sys.argv[1:])
