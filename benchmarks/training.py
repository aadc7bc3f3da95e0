"""Ten epochs of the recipe: the frozen layers run once, against plain `keras.Model.fit` of the whole network.

Ours is what `trainer.train` does: one pass of the frozen layers into a cache, then epochs of the trained part on it, in
the arithmetic that `trainer.precision=auto` chooses here. The rival fits the same partly frozen network on the same
images in float32. Every epoch is run, none is extrapolated. Both sides are traced in the warm-up, which does not count.

    python -m benchmarks.training [--rounds N] [--images N] [--epochs N]
"""

import argparse
import os

from benchmarks import harness

_DESCRIPTION = 'epochs of the recipe, ResNet50 at 224 px with random weights'


def measure(arguments: argparse.Namespace, folder: str) -> dict:
    """Both sides on the same images."""
    with harness.divert_stdout():
        import tfx  # noqa: F401  (before TFDV 1.16, which lacks a module that TFX replaces)

        from benchmarks.fits import KeptOutputs, make_plain_fit, read_images
        from trainer.config import TrainerConfig

        config = TrainerConfig(weights='none')
        sentence, images, labels = read_images(folder, arguments.images, config.get_image_size())
        kept = KeptOutputs(config, images, labels, folder)
        plain = make_plain_fit(config, images, labels)

    def train_ours() -> None:
        kept.fill()
        kept.fit(arguments.epochs)

    result = harness.run_benchmark(
        f'{arguments.epochs} {_DESCRIPTION}; {sentence}; ours in {kept.device.precision}, the rival in float32',
        train_ours,
        lambda: plain(arguments.epochs),
        rounds=arguments.rounds,
        images=arguments.images,
        epochs=arguments.epochs,
        precision=kept.device.precision,
    )
    trained = arguments.images * arguments.epochs
    return {**result, **{f'images_per_s_{side}': trained / result[side] for side in ('ours', 'rival')}}


def main() -> None:
    """The command line."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    parser = harness.build_parser(_DESCRIPTION, images=64)
    parser.add_argument('--epochs', type=int, default=10, help='passes over the images')
    arguments = parser.parse_args()
    print(harness.describe_machine())
    with harness.make_folder() as folder:
        harness.finish(measure(arguments, str(folder)))


if __name__ == '__main__':
    main()
