"""Feeding the network: PNGs decoded and resized on the way, against images materialised at the network's size.

    python -m benchmarks.input [--rounds N] [--images N]

Ours is `trainer.dataset`, which runs the Transform graph on PNG TFRecords. The rival reads the same
values as a materialising Transform writes them: float32 tf.Examples in GZIP TFRecords, read as TFX reads them (files
in parallel) and cut into a file for each core, its best case. A measurement is one pass, in batches, to the end.
"""

import functools
import itertools
import os
import sys
from pathlib import Path

from benchmarks import harness

_DESCRIPTION = 'Input, one pass in seconds: PNG through the Transform graph (ours) against materialised float32'


def write_materialised(dataset, out: Path) -> None:
    """Writes (image_xf, label_xf) batches as a materialising Transform writes them, a file for each core."""
    import tensorflow as tf

    from components import features

    out.mkdir()
    with_gzip = tf.io.TFRecordOptions(compression_type='GZIP')
    count = len(os.sched_getaffinity(0))
    writers = [tf.io.TFRecordWriter(str(out / f'part-{number}.gz'), with_gzip) for number in range(count)]
    turns = itertools.cycle(writers)
    for images, labels in dataset:
        for image, label in zip(images.numpy(), labels.numpy(), strict=True):
            values = {
                features.IMAGE_XF_KEY: tf.train.Feature(float_list=tf.train.FloatList(value=image.ravel())),
                features.LABEL_XF_KEY: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=values))
            next(turns).write(example.SerializeToString())
    for writer in writers:
        writer.close()


def read_materialised(folder: Path, image_size: int, batch_size: int):
    """The rival's dataset: batches of (float32 [N, S, S, 3], int64 [N])."""
    import tensorflow as tf

    from components import features

    spec = {
        features.IMAGE_XF_KEY: tf.io.FixedLenFeature([image_size, image_size, features.IMAGE_SHAPE[-1]], tf.float32),
        features.LABEL_XF_KEY: tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(examples):
        parsed = tf.io.parse_example(examples, spec)
        return parsed[features.IMAGE_XF_KEY], parsed[features.LABEL_XF_KEY]

    return (
        tf.data.Dataset.list_files(str(folder / '*'), shuffle=False)
        .interleave(lambda file: tf.data.TFRecordDataset(file, 'GZIP'), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def read_to_end(dataset, images: int) -> None:
    """One pass; fails when it is not of `images` images."""
    seen = sum(int(labels.shape[0]) for _, labels in dataset)
    if seen != images:
        raise RuntimeError(f'{seen} images were read, {images} were written')


def measure(folder: Path, images: int, rounds: int) -> dict:
    """Writes both forms under `folder`, measures both sides and adds images a second."""
    with harness.divert_stdout():
        import tfx  # noqa: F401  (before TFDV 1.16, which lacks a module that TFX replaces)

        from benchmarks.models import write_transform_graph
        from components import features
        from trainer.config import TrainerConfig
        from trainer.dataset import EpochOrder, make_batches, make_image_rows, read_records

        config = TrainerConfig()
        size = config.get_image_size()
        sentence = harness.write_records(folder / 'data', images)
        transform_output = write_transform_graph(str(folder / 'graph'), size)
        patterns = [str(folder / 'data' / split / '*') for split in features.SPLITS]

        def read_ours():
            """Reads the files and goes through the images once, as an epoch without a cache does."""
            records = read_records(patterns, transform_output)
            rows = make_image_rows(records, transform_output, 'none', 0)
            return make_batches(rows, records.labels, EpochOrder(len(records.labels), None), config.batch_size)

        write_materialised(read_ours(), folder / 'materialised')
        rival = read_materialised(folder / 'materialised', size, config.batch_size)
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
    used = {'bytes_ours': folder / 'data', 'bytes_rival': folder / 'materialised'}
    return {**result, **speeds, **{name: harness.measure_bytes(path) for name, path in used.items()}}


def main() -> int:
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
