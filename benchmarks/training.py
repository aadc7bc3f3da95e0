"""Ten epochs of the recipe on cached features (ours), against plain `keras.Model.fit` of the network (the rival).

Ours does what `trainer.train` does: it runs the frozen layers once over the images and caches their outputs, then
trains the remaining layers on the cache, in the precision that `trainer.precision=auto` chooses on this machine. The
rival fits the whole, partly frozen network on the same images in float32. Every epoch is run, and none is extrapolated.
TensorFlow traces the functions of both sides in the warm-up, which does not count.

    python -m benchmarks.training [--rounds N] [--images N] [--epochs N]
"""

import argparse

from benchmarks import harness

_DESCRIPTION = 'epochs of the recipe, ResNet50 at 224 px with random weights'


def measure(arguments: argparse.Namespace, folder: str) -> harness.Result:
    """Measures both sides on the same images; adds images per second."""
    with harness.divert_stdout():
        import tfx  # noqa: F401  (first, because TFX provides a module that TFDV 1.16 needs)

        from benchmarks.fits import CachedTraining, make_plain_fit, read_images
        from trainer.config import TrainerConfig

        config = TrainerConfig(weights='none')
        sentence, split = read_images(folder, arguments.images, config.get_image_size())
        cached = CachedTraining(config, split)
        plain = make_plain_fit(config, split)

    def train_ours() -> None:
        cached.fill()
        cached.fit(arguments.epochs)

    result = harness.run_benchmark(
        f'{arguments.epochs} {_DESCRIPTION}; {sentence}; ours in {cached.device.precision}, the rival in float32',
        train_ours,
        lambda: plain(arguments.epochs),
        rounds=arguments.rounds,
        images=arguments.images,
        epochs=arguments.epochs,
        precision=cached.device.precision,
    )
    trained = arguments.images * arguments.epochs
    return {**result, **{f'images_per_s_{side}': trained / result[side] for side in ('ours', 'rival')}}


def main() -> None:
    """Runs the command line."""
    parser = harness.build_parser(_DESCRIPTION, images=64)
    parser.add_argument('--epochs', type=int, default=10, help='number of passes over the images')
    arguments = parser.parse_args()
    print(harness.describe_machine())
    with harness.make_folder() as folder:
        harness.finish(measure(arguments, str(folder)))


if __name__ == '__main__':
    main()
