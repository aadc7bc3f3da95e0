"""A forecast of how long a row takes, from the arithmetic of its layers."""

from trainer.config import TrainerConfig

# Millions of multiply-accumulates of an image at 224 pixels in each stage, counted from the shapes of the convolutions.
_STAGES = {
    'resnet50': {'conv1': 118, 'conv2': 668, 'conv3': 951, 'conv4': 1387, 'conv5': 732},
    'densenet121': {'conv1': 118, 'conv2': 1143, 'conv3': 816, 'conv4': 652, 'conv5': 104},
}
_PER_SECOND = 45_000  # millions of multiply-accumulates on 2 cores of an AMD EPYC with AVX2
_STEP_S = 0.02  # seconds of a step besides its arithmetic
_TRAIN_IMAGES, _VAL_IMAGES = 9_000, 1_000


def forecast_seconds(config: TrainerConfig) -> tuple[float, float]:
    """Forecasts the seconds of the frozen pass and of the epochs, for the 12,000 images on 2 cores."""
    costs = {
        stage: cost * (config.get_image_size() / 224) ** 2 / _PER_SECOND
        for stage, cost in _STAGES[config.backbone].items()
    }
    first = config.get_train_from()
    trained = {'none': 0.0, 'all': sum(costs.values())}.get(first)
    if trained is None:
        trained = sum(cost for stage, cost in costs.items() if stage >= first)
    frozen = sum(costs.values()) - trained
    views = (config.cached_views or 1) if config.augmentation != 'none' else 1
    steps = _TRAIN_IMAGES / config.batch_size
    # A training step takes about three times the arithmetic of a prediction (forward, and backward twice).
    epoch = 3 * trained * _TRAIN_IMAGES + trained * _VAL_IMAGES + steps * _STEP_S
    if config.mix != 'none' or (config.augmentation != 'none' and not config.cached_views):  # nothing is cached
        return 0.0, (epoch + frozen * (_TRAIN_IMAGES + _VAL_IMAGES)) * config.epochs
    return frozen * (_TRAIN_IMAGES * views + _VAL_IMAGES), epoch * config.epochs
