"""TrainerConfig and ExportConfig, which are all that crosses from the pipeline to the trainer.

They travel as JSON in the Trainer's `custom_config`, so ML Metadata keeps every setting of every model. Neither needs
TensorFlow, whose import takes seconds, because the command line lists every setting.
"""

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args, get_origin

from trainer.backbones import BACKBONES

EXPORT_FILE = 'export.json'  # an ExportReport, in the SavedModel's assets.extra folder, which model servers pass over


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """What to train and how. The defaults are the published recipe."""

    backbone: Literal[tuple(BACKBONES)] = 'resnet50'
    """The network under the head, with a preprocessing and an image size of its own; see trainer/backbones.py."""
    image_size: int | None = None
    """Height and width in pixels that Transform resizes images to; None is the backbone's own, see `get_image_size`."""
    resize: Literal['bilinear', 'upsampling'] = 'bilinear'
    """How 32 pixels become `image_size`: 'upsampling' repeats each pixel a whole number of times, as UpSampling2D."""
    weights: str = 'imagenet'
    """'imagenet' (downloaded by Keras), 'none' (random), or the path or gs:// URI of a weights file without top."""
    train_from: str = 'auto'
    """Backbone layers whose names begin so are trained, with all above them; those below are frozen.
    'auto' is the backbone's last stage (ResNet50's conv5), 'none' trains the head alone, 'all' everything."""
    pooling: Literal['flatten', 'average'] = 'flatten'
    """What the head makes of the backbone's [N, H, W, C]: all values in a row, or each channel's mean."""
    head_units: tuple[int, ...] = (256, 128, 64)
    """Width of each Dense layer of the head; the ten-way softmax comes after them."""
    head_batchnorm: bool = True
    """Whether a BatchNorm follows the pooling and each Dense layer of the head."""
    dropout: float = 0.5
    """Share of activations dropped after each Dense layer of the head, 0 to below 1."""
    batchnorm_momentum: float = 0.99
    """Of every BatchNorm that is trained; runs of fewer than some 500 steps need 0.9 or less."""
    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes while training, 0 to below 1."""
    optimizer: Literal['rmsprop', 'sgd', 'adam', 'adamw'] = 'rmsprop'
    """Keras', with Keras' defaults but for the three settings below."""
    learning_rate: float = 2e-5
    """The optimizer's; the peak of the schedule."""
    schedule: Literal['constant', 'cosine'] = 'constant'
    """How the learning rate goes over the steps; 'cosine' falls to zero at the last one."""
    warmup_epochs: float = 0.0
    """Epochs over which the cosine schedule first rises from zero."""
    momentum: float = 0.9
    """Of 'sgd' alone, 0 to below 1."""
    weight_decay: float = 0.004
    """Of 'adamw' alone: share of a kernel taken off each step, times the learning rate. Biases and BatchNorm are
    left out."""
    batch_size: int = 32
    """Images a step; the last, smaller batch of an epoch is trained on too."""
    epochs: int = 10
    """Passes over the train split; with head_epochs, those of the second phase."""
    head_epochs: int = 0
    """Passes of a first phase that trains the head alone, before the layers from train_from on are trained too."""
    head_learning_rate: float = 1e-3
    """The learning rate of that first phase."""
    early_stopping_patience: int | None = None
    """Epochs without a better val_accuracy after which a phase ends; None trains them all."""
    class_weights: Literal['none', 'balanced'] = 'none'
    """'balanced' weighs examples so that every class counts the same, whatever its share."""
    augmentation: Literal['none', 'flip', 'flip_crop'] = 'none'
    """What training does to images: mirror half of them, and shift them by up to an eighth of their size."""
    cache: Literal['auto', 'memory', 'disk', 'off'] = 'auto'
    """Where the frozen layers' outputs are kept, so that they run once; 'auto' decides by their size."""
    cache_dir: str | None = None
    """Local folder for a cache on disk; None for the run's own."""
    cached_views: int = 0
    """Augmented views of each image to keep; 0 runs the frozen layers in every epoch when there is augmentation."""
    precision: Literal['auto', 'float32', 'onednn_bfloat16', 'mixed_bfloat16', 'mixed_float16'] = 'auto'
    """Arithmetic while training: 'auto' is bfloat16 where the hardware has it. Variables are float32 always."""
    strategy: Literal['auto', 'one', 'mirrored', 'multi_worker'] = 'auto'
    """What trains: one device, all GPUs of the machine, or all workers that TF_CONFIG lists; 'auto' takes what there
    is. batch_size is that of all together."""
    seed: int = 0
    """Of the initial weights, dropout and shuffling."""

    def __post_init__(self):
        for field in fields(self):
            if get_origin(field.type) is Literal and getattr(self, field.name) not in get_args(field.type):
                self._refuse(field.name, f'one of {", ".join(get_args(field.type))}')
        smallest = BACKBONES[self.backbone].smallest_size
        checks = (
            ('image_size', self.get_image_size() >= smallest, f"at least {smallest}, {self.backbone}'s smallest"),
            ('train_from', bool(self.train_from), '"auto", "none", "all" or the beginning of a layer name'),
            ('dropout', 0 <= self.dropout < 1, '0 to below 1'),
            ('batchnorm_momentum', 0 <= self.batchnorm_momentum < 1, '0 to below 1'),
            ('label_smoothing', 0 <= self.label_smoothing < 1, '0 to below 1'),
            ('learning_rate', self.learning_rate > 0, 'over 0'),
            ('momentum', 0 <= self.momentum < 1, '0 to below 1'),
            ('weight_decay', self.weight_decay >= 0, '0 or more'),
            ('batch_size', self.batch_size >= 1, 'at least 1'),
            ('epochs', self.epochs >= 1, 'at least 1'),
            ('head_epochs', self.head_epochs >= 0, 'at least 0'),
            ('head_learning_rate', self.head_learning_rate > 0, 'over 0'),
            ('warmup_epochs', self.warmup_epochs >= 0, 'at least 0'),
            ('cached_views', self.cached_views >= 0, 'at least 0'),
            (
                'early_stopping_patience',
                self.early_stopping_patience is None or self.early_stopping_patience >= 1,
                'at least 1 or none',
            ),
            ('head_units', all(units >= 1 for units in self.head_units), 'widths of at least 1'),
        )
        for name, holds, wanted in checks:
            if not holds:
                self._refuse(name, wanted)
        if self.resize == 'upsampling' and self.get_image_size() % 32:
            raise ValueError(
                'trainer.image_size must be a multiple of 32 for trainer.resize=upsampling, which repeats each pixel a '
                f'whole number of times. Received: {self.get_image_size()}'
            )

    def _refuse(self, name: str, wanted: str) -> None:
        raise ValueError(f'trainer.{name} must be {wanted}. Received: {getattr(self, name)!r}')

    def get_image_size(self) -> int:
        """Height and width in pixels of what the network takes: `image_size`, or the backbone's own."""
        return BACKBONES[self.backbone].image_size if self.image_size is None else self.image_size

    def get_train_from(self) -> str:
        """`train_from` with 'auto' resolved: 'none', 'all', or the beginning of layer names."""
        return BACKBONES[self.backbone].train_from if self.train_from == 'auto' else self.train_from


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What the SavedModel computes with. Read by trainer/export.py; travels in the Trainer's `custom_config`."""

    precision: Literal['float32', 'bfloat16'] = 'float32'
    """Of the served weights and arithmetic; bfloat16 wants a CPU or GPU that has it, and must agree with float32."""
    min_agreement: float = 0.995
    """Least share of val images, 0-1, to which bfloat16 must give the class that float32 gives, or the run stops."""

    def __post_init__(self):
        if not 0 <= self.min_agreement <= 1:
            raise ValueError(f'export.min_agreement must be 0 to 1. Received: {self.min_agreement!r}')


class ExportReport(NamedTuple):
    """What was exported; written as JSON into the SavedModel."""

    precision: str
    """ExportConfig's."""
    agreement: float | None
    """Share of val images, 0-1, that get the class float32 gives them; None for float32 itself, not measured."""
    count: int
    """Images compared."""
