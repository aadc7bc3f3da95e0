"""TrainerConfig: the only thing that crosses from the pipeline to the trainer.

It travels as JSON in the Trainer's `custom_config`, so ML Metadata keeps every setting of every model.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """What to train and how. The defaults are the published recipe."""

    image_size: int = 224
    """Height and width in pixels that Transform resizes images to; at least 32, ResNet50's minimum."""
    weights: str = 'imagenet'
    """'imagenet' (downloaded by Keras), 'none' (random), or the path or gs:// URI of a weights file without top."""
    train_from: str = 'conv5'
    """Layers from the first whose name starts so are trained, those below are frozen; 'none' trains the head alone."""
    head_units: tuple[int, ...] = (256, 128, 64)
    """Width of each Dense layer of the head; the ten-way softmax comes after them."""
    dropout: float = 0.5
    """Share of activations dropped after each Dense layer of the head, 0 to below 1."""
    batchnorm_momentum: float = 0.99
    """Of every BatchNorm that is trained; runs of fewer than some 500 steps need 0.9 or less."""
    learning_rate: float = 2e-5
    """RMSprop's, constant."""
    batch_size: int = 32
    """Images a step; the last, smaller batch of an epoch is trained on too."""
    epochs: int = 10
    """Passes over the train split."""
    precision: Literal['auto', 'float32', 'mixed_bfloat16', 'mixed_float16'] = 'auto'
    """Keras' dtype policy while training; 'auto' is mixed on a GPU that gains by it. The export is float32."""
    seed: int = 0
    """Of the initial weights, dropout and shuffling."""

    def __post_init__(self):
        checks = (
            ('image_size', self.image_size >= 32, 'at least 32'),
            ('dropout', 0 <= self.dropout < 1, '0 to below 1'),
            ('batchnorm_momentum', 0 <= self.batchnorm_momentum < 1, '0 to below 1'),
            ('learning_rate', self.learning_rate > 0, 'over 0'),
            ('batch_size', self.batch_size >= 1, 'at least 1'),
            ('epochs', self.epochs >= 1, 'at least 1'),
            ('head_units', all(units >= 1 for units in self.head_units), 'widths of at least 1'),
        )
        for name, holds, wanted in checks:
            if not holds:
                raise ValueError(f'trainer.{name} must be {wanted}. Received: {getattr(self, name)!r}')
