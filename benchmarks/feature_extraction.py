"""An epoch of feature extraction (nothing of ResNet50 trained, average pooling): on kept outputs, against on images.

Ours trains the head on the pooled features, which were computed once; that pass is not part of an epoch and is printed
apart. It fits ten epochs at a time, as a training does, and a tenth of that is its epoch. The rival is one epoch of
plain `keras.Model.fit` of the whole network in float32.

    python -m benchmarks.feature_extraction [--rounds N] [--images N]
"""

import argparse
import os
import time

from benchmarks import harness

_EPOCHS = 10
_DESCRIPTION = 'an epoch of feature extraction, ResNet50 at 224 px with random weights'


def measure(arguments: argparse.Namespace, folder: str) -> dict:
    """Both sides on the same images."""
    with harness.divert_stdout():
        import tfx  # noqa: F401  (before TFDV 1.16, which lacks a module that TFX replaces)

        from benchmarks.fits import KeptOutputs, make_plain_fit, read_images
        from trainer.config import TrainerConfig

        config = TrainerConfig(weights='none', train_from='none', pooling='average')
        sentence, images, labels = read_images(folder, arguments.images, config.get_image_size())
        kept = KeptOutputs(config, images, labels, folder)
        plain = make_plain_fit(config, images, labels)
        begin = time.perf_counter()
        kept.fill()
        fill_s = time.perf_counter() - begin
    print(f'the frozen layers, once: {fill_s:.1f} s')
    return harness.run_benchmark(
        f'{_DESCRIPTION}; {sentence}; ours in {kept.device.precision}, the rival in float32',
        lambda: kept.fit(_EPOCHS),
        lambda: plain(1),
        rounds=arguments.rounds,
        ours_units=_EPOCHS,
        images=arguments.images,
        precision=kept.device.precision,
        fill_s=fill_s,
    )


def main() -> None:
    """The command line."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    arguments = harness.build_parser(_DESCRIPTION, images=1024).parse_args()
    print(harness.describe_machine())
    with harness.make_folder() as folder:
        harness.finish(measure(arguments, str(folder)))


if __name__ == '__main__':
    main()
