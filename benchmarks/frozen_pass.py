"""The frozen pass as training runs it (ours), against the frozen layers' graph alone (the rival).

Ours reads encoded images, decodes and resizes them, runs the frozen layers on them, and stores the outputs in a cache
in memory or on disk. The rival calls the same graph in a loop on one batch that is already in memory, and stores
nothing: it is the most that ours could reach. `ratio` is the share of the rival's speed that ours keeps.

    python -m benchmarks.frozen_pass [--backbone NAME] [--cache memory|disk] [--image-size N] [--rounds N] [--images N]
"""

import argparse

from benchmarks import harness

_DESCRIPTION = 'the frozen pass with random weights: from encoded images to the cache, against the graph alone'


def measure(arguments: argparse.Namespace, folder: str) -> harness.Result:
    """Measures both sides; adds images per second."""
    with harness.divert_stdout():
        import tensorflow as tf
        import tfx  # noqa: F401  (first, because TFX provides a module that TFDV 1.16 needs)

        from benchmarks.fits import read_images
        from benchmarks.models import build_random_model
        from trainer.cache import FeatureCache, fill_cache
        from trainer.config import TrainerConfig
        from trainer.device import use_device
        from trainer.model import split_at_border
        from trainer.training_rows import TRUNK_BATCH, make_trunk_function

        config = TrainerConfig(weights='none', backbone=arguments.backbone, image_size=arguments.image_size)
        size, images = config.get_image_size(), arguments.images
        sentence, split = read_images(folder, images, size, config.backbone)
        with use_device(config.precision) as device:
            trunk, _ = split_at_border(build_random_model(config))
            run = make_trunk_function(trunk, device)
        cache = FeatureCache(arguments.cache, images, trunk.output_shape[1:], device.cache_dtype, folder)
        batch = split.read_rows(tf.range(TRUNK_BATCH, dtype=tf.int64), tf.constant(0, tf.int64))

    def run_alone() -> None:
        for start in range(0, images, TRUNK_BATCH):
            outputs = run(batch[: images - start])
        outputs.numpy()  # a GPU may still be computing

    result = harness.run_benchmark(
        f'{_DESCRIPTION}; {config.backbone} at {size} px, cache in {arguments.cache}, {device.precision}; {sentence}',
        lambda: fill_cache(cache, split.read_rows, range(images), 1, run, TRUNK_BATCH),
        run_alone,
        rounds=arguments.rounds,
        images=images,
        backbone=config.backbone,
        cache=arguments.cache,
        image_size=size,
        precision=device.precision,
    )
    cache.close()
    return {**result, **{f'images_per_s_{name}': images / result[name] for name in ('ours', 'rival')}}


def main() -> None:
    """Runs the command line."""
    parser = harness.build_parser(_DESCRIPTION, images=1024)
    parser.add_argument('--backbone', default='resnet50', help='the network whose frozen layers run')
    parser.add_argument('--cache', choices=['memory', 'disk'], default='memory', help='where the outputs are stored')
    parser.add_argument('--image-size', type=int, help="height and width in pixels; the backbone's own if not given")
    arguments = parser.parse_args()
    print(harness.describe_machine())
    with harness.make_folder() as folder:
        result = measure(arguments, str(folder))
    print(f'  ours {result["images_per_s_ours"]:.1f} images/s, rival {result["images_per_s_rival"]:.1f} images/s')
    harness.finish(result)


if __name__ == '__main__':
    main()
