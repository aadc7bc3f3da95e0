"""Reading the model's inputs: PNGs that are decoded and resized while reading (ours), against materialized images.

    python -m benchmarks.input [--rounds N] [--images N]

Ours is `trainer.dataset`, which reads TFRecords of PNGs and runs the Transform graph on them. The rival reads the same
inputs in the form in which a materializing Transform writes them: float32 tf.Examples in GZIP TFRecords. It reads the
files in parallel, as TFX does, and there is one file for each core, which is its best case. A measurement is one pass
over all batches.
"""

import functools
import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import harness
from components.contract import CHANNELS

_DESCRIPTION = 'One pass over the inputs: PNG through the Transform graph (ours) against materialized float32'

Batches = Iterable[tuple[Any, Any]]
"""Batches of tensors: (images float32 [N, S, S, 3], labels int64 [N])."""


def write_materialized(batches: Batches, out: Path) -> None:
    """Writes batches in the form in which a materializing Transform writes them, with one file for each core."""
    import tensorflow as tf

    from components import features

    out.mkdir()
    with_gzip = tf.io.TFRecordOptions(compression_type='GZIP')
    count = len(os.sched_getaffinity(0))
    writers = [tf.io.TFRecordWriter(str(out / f'part-{number}.gz'), with_gzip) for number in range(count)]
    turns = itertools.cycle(writers)
    for images, labels in batches:
        for image, label in zip(images.numpy(), labels.numpy(), strict=True):
            values = {
                features.IMAGE_XF_KEY: tf.train.Feature(float_list=tf.train.FloatList(value=image.ravel())),
                features.LABEL_XF_KEY: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=values))
            next(turns).write(example.SerializeToString())
    for writer in writers:
        writer.close()


def read_materialized(folder: Path, image_size: int, batch_size: int) -> Batches:
    """Makes the rival's dataset from what `write_materialized` wrote."""
    import tensorflow as tf

    from components import features

    spec = {
        features.IMAGE_XF_KEY: tf.io.FixedLenFeature([image_size, image_size, CHANNELS], tf.float32),
        features.LABEL_XF_KEY: tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_example(examples, spec)
        return parsed[features.IMAGE_XF_KEY], parsed[features.LABEL_XF_KEY]

    dataset: Batches = (
        tf.data.Dataset.list_files(str(folder / '*'), shuffle=False)
        .interleave(lambda file: tf.data.TFRecordDataset(file, 'GZIP'), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    return dataset


def read_to_end(batches: Batches, images: int) -> None:
    """Reads all batches once.

    Raises:
      RuntimeError: They do not have `images` images.
    """
    seen = sum(int(labels.shape[0]) for _, labels in batches)
    if seen != images:
        raise RuntimeError(f'{images} images were written, but {seen} were read.')


def measure(folder: Path, images: int, rounds: int) -> harness.Result:
    """Writes the images in both forms under `folder` and measures both sides; adds images per second and bytes."""
    with harness.divert_stdout():
        import tfx  # noqa: F401  (first, because TFX provides a module that TFDV 1.16 needs)

        from benchmarks.models import write_transform_graph
        from components import features
        from trainer.config import TrainerConfig
        from trainer.dataset import EpochOrder, make_batches, read_split

        config = TrainerConfig()
        size = config.get_image_size()
        sentence = harness.write_records(folder / 'data', images)
        transform_output = write_transform_graph(str(folder / 'graph'), size)
        patterns = [str(folder / 'data' / split / '*') for split in features.SPLITS]

        def read_ours() -> Batches:
            """Reads the files and makes the batches of one epoch, as a training without a cache does."""
            split = read_split(patterns, transform_output)
            batches: Batches = make_batches(split, EpochOrder(split.count, None), config.batch_size)
            return batches

        write_materialized(read_ours(), folder / 'materialized')
        rival = read_materialized(folder / 'materialized', size, config.batch_size)
    result = harness.run_benchmark(
        f'{_DESCRIPTION}; {sentence} at {size} px, batches of {config.batch_size}',
        lambda: read_to_end(read_ours(), images),
        functools.partial(read_to_end, rival, images),
        rounds=rounds,
        images=images,
        image_size=size,
        batch_size=config.batch_size,
    )
    speeds = {f'images_per_s_{name}': images / result[name] for name in ('ours', 'rival')}
    used = {'bytes_ours': folder / 'data', 'bytes_rival': folder / 'materialized'}
    return {**result, **speeds, **{name: harness.measure_bytes(path) for name, path in used.items()}}


def main() -> int:
    """Runs the command line and returns the exit code."""
    args = harness.build_parser(_DESCRIPTION, images=2048).parse_args()
    print(harness.describe_machine(), flush=True)
    with harness.make_folder() as folder:
        result = measure(folder, args.images, args.rounds)
    print(
        f'  ours {result["images_per_s_ours"]:,.0f} images/s from {result["bytes_ours"]:,} bytes, '
        f'rival {result["images_per_s_rival"]:,.0f} images/s from {result["bytes_rival"]:,} bytes'
    )
    harness.finish(result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
