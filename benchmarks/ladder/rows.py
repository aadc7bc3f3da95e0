"""The rows of the ladder: which recipes are compared, and the settings that reproduce each with `pipeline run`.

The rows stand in the order in which they are measured: what decides most for the least time comes first.
"""

import fnmatch
from typing import NamedTuple

from pipeline.config import PRESETS, PipelineConfig
from pipeline.overrides import apply_overrides

PRESET = 'cifar10'  # the published recipe; the settings of a row are changes to it
_PASS_SETTINGS = (  # what the outputs of the frozen layers depend on, and whether they are cached
    *('backbone', 'image_size', 'resize', 'weights', 'train_from', 'precision'),
    *('augmentation', 'cached_views', 'mix', 'cache'),
)

Settings = tuple[str, ...]
"""Settings as the option `--set` takes them, such as ('trainer.epochs=5', 'trainer.pooling=average')."""


class Row(NamedTuple):
    """One recipe of the ladder."""

    name: str
    """A unique name; it is part of file names."""
    recipe: str
    """What the recipe is, in the words of the table."""
    settings: Settings
    """What differs from the preset, without the file of the weights and the seed."""
    seeds: int = 1
    """How often the row is measured, with the seeds 0, 1, ..."""
    needs_bfloat16: bool = False
    """Whether the row says nothing where `trainer.precision=auto` is float32."""


class Job(NamedTuple):
    """One training: a row with a seed."""

    row: Row
    seed: int

    def make_config(self, weights: dict[str, str]) -> PipelineConfig:
        """Returns the settings of the training.

        Args:
          weights: The weights file of each backbone, for rows that do not say where their weights come from; without
            one it is Keras' download.
        """
        config = apply_overrides(PRESETS[PRESET]('runs/ladder'), [*self.row.settings, f'trainer.seed={self.seed}'])
        file = weights.get(config.trainer.backbone)
        is_open = file is not None and config.trainer.weights == 'imagenet'
        return apply_overrides(config, [f'trainer.weights={file}']) if is_open else config


_SIMPLE = (
    'trainer.pooling=average',
    'trainer.head_units=',
    'trainer.optimizer=adam',
    'trainer.schedule=cosine',
    'trainer.batch_size=64',
)
_LINEAR = (*_SIMPLE, 'trainer.train_from=none', 'trainer.learning_rate=1e-3', 'trainer.epochs=20')
_TUNED = (*_SIMPLE, 'trainer.learning_rate=3e-4', 'trainer.epochs=5')
_FAST = (*_SIMPLE, 'trainer.train_from=conv4', 'trainer.learning_rate=5e-4', 'trainer.epochs=4')
_RANDOM = ('trainer.weights=none',)
_TITLES = {'densenet121': 'DenseNet121', 'resnet50': 'ResNet50'}


def _make_row(backbone: str, size: int, name: str, recipe: str, settings: Settings, seeds: int = 1) -> Row:
    """Makes a row of one backbone at one image size in pixels, which its name begins with."""
    base = (f'trainer.backbone={backbone}', f'trainer.image_size={size}')
    return Row(f'{backbone}-{size}-{name}', f'{_TITLES[backbone]}, {size} px: {recipe}', base + settings, seeds)


def _make_linear(backbone: str, size: int, seeds: int = 3) -> Row:
    return _make_row(backbone, size, 'linear', 'all frozen, one Dense layer', _LINEAR, seeds)


def _make_last_stage(backbone: str, size: int, seeds: int = 3) -> Row:
    return _make_row(backbone, size, 'last-stage', 'last stage trained', _TUNED, seeds)


def _make_two_stages(backbone: str, size: int) -> Row:
    settings = (*_TUNED, 'trainer.train_from=conv4')
    return _make_row(backbone, size, 'two-stages', 'last two stages trained', settings)


def _make_all(backbone: str, size: int) -> Row:
    return _make_row(backbone, size, 'all', 'all layers trained', (*_TUNED, 'trainer.train_from=all'))


def _start_random(row: Row) -> Row:
    """Makes the same row from random weights, which shows what ImageNet's are worth."""
    return Row(f'{row.name}-random', f'{row.recipe}, random weights', row.settings + _RANDOM)


def _vary(row: Row, name: str, recipe: str, *settings: str) -> Row:
    """Makes a row that differs from another only in the given settings."""
    return row._replace(name=f'{row.name}-{name}', recipe=f'{row.recipe}, {recipe}', settings=row.settings + settings)


def _list_published(backbone: str, size: int) -> list[Row]:
    """Lists the published recipe, and rows that each differ from it in one choice, or in the whole head."""
    row = _make_row(backbone, size, 'published', 'the published recipe', ())
    return [
        row,
        _vary(row, 'average-linear', 'average pooling and one Dense layer', 'trainer.pooling=average', _SIMPLE[1]),
        _vary(row, 'average', 'average pooling', 'trainer.pooling=average'),
        _vary(row, 'no-dropout', 'no dropout', 'trainer.dropout=0'),
        _vary(row, 'faster', 'learning rate 3e-4', 'trainer.learning_rate=3e-4'),
    ]


def _list_precisions(row: Row) -> list[Row]:
    """Lists a row in float32 and in the device's bfloat16, which must agree within chance."""
    # Of two epochs, so that five seeds of both take minutes.
    return [
        _vary(row, precision, f'2 epochs, {words}', f'trainer.precision={setting}', 'trainer.epochs=2')._replace(
            seeds=5, needs_bfloat16=True
        )
        for precision, words, setting in (('float32', 'float32', 'float32'), ('bfloat16', 'bfloat16', 'auto'))
    ]


_BEST = _make_last_stage('densenet121', 160)

ROWS: tuple[Row, ...] = (
    _make_linear('densenet121', 160),
    _BEST,
    _vary(_BEST, 'faster', 'learning rate 1e-3', 'trainer.learning_rate=1e-3'),
    _make_row('densenet121', 128, 'two-stages', 'last two stages trained, learning rate 5e-4', _FAST),
    *_list_published('densenet121', 160),
    _make_linear('resnet50', 160),
    _make_last_stage('resnet50', 160, seeds=1),
    _start_random(_make_linear('densenet121', 160)),
    _start_random(_BEST),
    _make_all('densenet121', 64),
    _start_random(_make_all('densenet121', 64)),
    _make_linear('densenet121', 224),
    _make_last_stage('densenet121', 224),
    _make_two_stages('densenet121', 160),
    _make_all('densenet121', 96),
    # What can be added to the best simple row.
    _vary(_BEST, 'smoothing', 'labels smoothed', 'trainer.label_smoothing=0.1'),
    _vary(_BEST, 'flip', 'flipped, two cached views', 'trainer.augmentation=flip', 'trainer.cached_views=2')._replace(
        seeds=1
    ),
    _vary(_BEST, 'ema', 'weights averaged', 'trainer.weight_average=ema'),
    _vary(_BEST, 'temperature', 'temperature scaled', 'trainer.calibration=temperature'),
    *_list_precisions(_make_last_stage('resnet50', 64)),
    # Mixed images cannot be cached, so the frozen layers run in every epoch.
    _vary(_BEST, 'mixup', 'mixup', 'trainer.mix=mixup')._replace(seeds=1),
    _vary(_BEST, 'cutmix', 'CutMix', 'trainer.mix=cutmix')._replace(seeds=1),
    # The larger ResNet50 rows take longest.
    _make_linear('resnet50', 224),
    _make_last_stage('resnet50', 224, seeds=1),
    _make_two_stages('resnet50', 160),
    _make_all('resnet50', 64),
    _start_random(_make_all('resnet50', 64)),
    _make_two_stages('densenet121', 224),
    _make_two_stages('resnet50', 224),
)


def find_rows(patterns: list[str]) -> list[Row]:
    """Returns the rows whose names match one of the patterns, such as 'densenet121-*'; all rows if there is none."""
    return [row for row in ROWS if not patterns or any(fnmatch.fnmatch(row.name, pattern) for pattern in patterns)]


def group_jobs(jobs: list[Job]) -> list[list[Job]]:
    """Puts jobs together that can share one frozen pass; a group stands where its first job stood.

    The seed matters for the pass only where it decides the frozen weights or the augmented views, and the pooling only
    where it comes before the first trained weights.
    """
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        config = job.make_config({}).trainer
        is_seeded = config.weights == 'none' or config.augmentation != 'none'
        key = (
            *(getattr(config, name) for name in _PASS_SETTINGS),
            config.pooling if config.train_from == 'none' else None,
            job.seed if is_seeded else None,
        )
        groups.setdefault(key, []).append(job)
    return list(groups.values())
