"""An epoch of feature extraction on cached features (ours), against one on images (the rival).

Nothing of ResNet50 is trained, and the pooling is by average. Ours trains the head on the pooled features. They are
computed once, which is not part of an epoch; that time is printed apart. Ours runs ten epochs in one `fit`, as a
training does, and a tenth of that time counts as its epoch. The rival is one epoch of plain `keras.Model.fit` on the
whole network in float32.

    python -m benchmarks.feature_extraction [--rounds N] [--images N]
"""

import argparse
import time

from benchmarks import harness

_EPOCHS = 10
_DESCRIPTION = 'an epoch of feature extraction, ResNet50 at 224 px with random weights'


def measure(arguments: argparse.Namespace, folder: str) -> harness.Result:
    """Measures both sides on the same images; adds the seconds that filling the cache took."""
    with harness.divert_stdout():
        import tfx  # noqa: F401  (first, because TFX provides a module that TFDV 1.16 needs)

        from benchmarks.fits import CachedTraining, make_plain_fit, read_images
        from trainer.config import TrainerConfig

        config = TrainerConfig(weights='none', train_from='none', pooling='average')
        sentence, split = read_images(folder, arguments.images, config.get_image_size())
        cached = CachedTraining(config, split)
        plain = make_plain_fit(config, split)
        begin = time.perf_counter()
        cached.fill()
        fill_s = time.perf_counter() - begin
    print(f'running the frozen layers once took {fill_s:.1f} s')
    return harness.run_benchmark(
        f'{_DESCRIPTION}; {sentence}; ours in {cached.device.precision}, the rival in float32',
        lambda: cached.fit(_EPOCHS),
        lambda: plain(1),
        rounds=arguments.rounds,
        ours_units=_EPOCHS,
        images=arguments.images,
        precision=cached.device.precision,
        fill_s=fill_s,
    )


def main() -> None:
    """Runs the command line."""
    arguments = harness.build_parser(_DESCRIPTION, images=1024).parse_args()
    print(harness.describe_machine())
    with harness.make_folder() as folder:
        harness.finish(measure(arguments, str(folder)))


if __name__ == '__main__':
    main()
