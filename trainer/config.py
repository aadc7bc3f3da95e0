"""TrainerConfig, TunerConfig and ExportConfig: all that the pipeline tells the trainer.

They travel as JSON in the `custom_config` of Trainer and Tuner, so ML Metadata keeps every setting of every model. They
do not need TensorFlow, whose import takes seconds, because the command line lists every setting.
"""

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from components.places import check_place
from components.settings import Settings
from trainer.backbones import BACKBONES

EXPORT_FILE = 'export.json'  # an ExportReport, in the SavedModel's assets.extra folder, which model servers ignore

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(Settings):
    """What to train and how. The defaults are the published recipe."""

    SECTION: ClassVar[str] = 'trainer'

    backbone: Literal['resnet50', 'resnet101', 'vgg16', 'inception_v3', 'densenet121'] = 'resnet50'
    """The network below the head, which brings its own preprocessing and image size; see trainer/backbones.py."""
    image_size: int | None = None
    """Height and width in pixels that Transform resizes images to; None takes the backbone's own size."""
    resize: Literal['bilinear', 'upsampling', 'stretch'] = 'bilinear'
    """How images become `image_size`: the shorter side is resized, and the middle of the longer one is kept.
    'upsampling' repeats each pixel a whole number of times, as Keras' UpSampling2D does; 'stretch' squeezes the whole
    image into the square."""
    weights: str = 'imagenet'
    """The backbone's initial weights: 'imagenet' (downloaded by Keras), 'none' (random), or the path or gs:// URI of a
    weights file without top."""
    warm_start: str = 'none'
    """What the whole network begins with in place of `weights`: 'none' for nothing; 'serving', the version that is
    serving, if there is one; or the path or URI of a pushed version or a serving folder. It must have the same
    backbone, head and classes."""
    train_from: str = 'auto'
    """Which backbone layers are trained: those whose names begin with this text, and all above them. The layers below
    are frozen. 'auto' is the backbone's last stage (ResNet50's conv5), 'none' trains only the head (feature
    extraction), 'all' trains every layer."""
    pooling: Literal['flatten', 'average'] = 'flatten'
    """What the head makes of the backbone's output [N, H, W, C]: all values in a row, or the mean of each channel."""
    head_units: tuple[Count, ...] = (256, 128, 64)
    """Width of each Dense layer of the head; the softmax over the classes comes after them."""
    head_batchnorm: bool = True
    """Whether a BatchNorm follows the pooling and each Dense layer of the head."""
    dropout: Share = 0.5
    """Share of activations that are dropped after each Dense layer of the head, 0 to below 1."""
    batchnorm_momentum: Share | None = None
    """Momentum of every BatchNorm that is trained. None takes Keras' 0.99, and less where an epoch has fewer than 459
    steps, so that what the statistics were before training weighs at most 1% after one epoch."""
    label_smoothing: Share = 0.0
    """Share of each class label that is spread evenly over all classes while training, 0 to below 1."""
    optimizer: Literal['rmsprop', 'sgd', 'adam', 'adamw'] = 'rmsprop'
    """Keras' optimizer. It has Keras' defaults, except for learning_rate, momentum and weight_decay."""
    learning_rate: Positive = 2e-5
    """The optimizer's learning rate; with a schedule, its highest value."""
    schedule: Literal['constant', 'cosine'] = 'constant'
    """How the learning rate changes over the steps; 'cosine' falls to zero at the last one."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs over which the cosine schedule first rises from zero."""
    momentum: Share = 0.9
    """Momentum of 'sgd', 0 to below 1; the other optimizers do not read it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.004
    """Share of a kernel that 'adamw' takes off at each step, times the learning rate. Biases and BatchNorm are left
    out, and the other optimizers do not read it."""
    weight_average: Literal['none', 'ema'] = 'none'
    """Which weights are validated, kept and exported: those after the last step of an epoch, or with 'ema' their
    exponential moving average, whose memory is a tenth of a phase's steps. Needs a single worker."""
    batch_size: Count = 32
    """Images in a step. The last batch of an epoch, which may be smaller, is trained on too."""
    epochs: Count = 10
    """Passes over the train split; with head_epochs, those of the second phase."""
    head_epochs: Annotated[int, Field(ge=0)] = 0
    """Passes of a first phase that trains only the head, before the layers from train_from on are trained too."""
    head_learning_rate: Positive = 1e-3
    """The learning rate of that first phase."""
    early_stopping_patience: Count | None = None
    """Epochs without a better val_accuracy after which a phase ends; None trains all epochs."""
    class_weights: Literal['none', 'balanced'] = 'none'
    """'balanced' weighs examples so that every class counts the same, whatever its share."""
    augmentation: Literal['none', 'flip', 'flip_crop'] = 'none'
    """What training does to images: 'flip' mirrors half of them, 'flip_crop' also shifts them by up to an eighth of
    their size."""
    mix: Literal['none', 'mixup', 'cutmix'] = 'none'
    """How training images are mixed in pairs, and their labels in the same shares: 'mixup' averages the two, 'cutmix'
    pastes a rectangle of one into the other. The frozen layers then run in every epoch, for nothing can be cached."""
    cache: Literal['auto', 'memory', 'disk', 'off'] = 'auto'
    """Where the outputs of the frozen layers are kept, so that they run only once; 'auto' decides by measuring."""
    cache_dir: str | None = None
    """Local folder for a cache on disk; None takes one in the run's own folder."""
    checkpoint_dir: str | None = None
    """Folder for the checkpoints, a path or an s3:// or gs:// URI; None takes one beside the Trainer's outputs. On
    Kubeflow that one vanishes with the pod, so name a folder on a volume or in an object store there."""
    cached_views: Annotated[int, Field(ge=0)] = 0
    """Augmented views of each image to keep; with 0 and augmentation, the frozen layers run in every epoch."""
    precision: Literal['auto', 'float32', 'onednn_bfloat16', 'mixed_bfloat16', 'mixed_float16'] = 'auto'
    """Arithmetic while training: 'auto' is bfloat16 where the hardware has it. Variables are always float32."""
    calibration: Literal['none', 'temperature'] = 'none'
    """What is done to the confidence of the trained model: 'temperature' divides its logits by the number with which
    its probabilities on val have the least loss, and changes no predicted class."""
    strategy: Literal['auto', 'one', 'mirrored', 'multi_worker'] = 'auto'
    """What trains: one device, all GPUs of the machine, or all workers that TF_CONFIG lists; 'auto' takes what there
    is. The batch_size is that of all devices together."""
    join_timeout_s: Positive | None = None
    """Seconds that the workers which TF_CONFIG lists wait for each other. None takes 90, and 1800 in a pod of
    Kubernetes, whose node may have to pull the image first."""
    seed: int = 0
    """Seed of the initial weights, dropout and shuffling."""

    def __post_init__(self) -> None:
        if not self.train_from:
            raise ValueError(
                'trainer.train_from must be "auto", "none", "all" or the beginning of a layer name. Received: \'\''
            )
        for name, place in (('checkpoint_dir', self.checkpoint_dir), ('warm_start', self.warm_start)):
            try:
                check_place(place or '')
            except ValueError as error:
                raise ValueError(f'trainer.{name} {error}') from error
        if self.mix != 'none' and self.cached_views:
            raise ValueError(
                f'trainer.cached_views must be 0 with trainer.mix={self.mix}, which makes new images in every step. '
                f'Received: {self.cached_views}'
            )
        size, smallest = self.get_image_size(), BACKBONES[self.backbone].smallest_size
        if size < smallest:
            raise ValueError(
                f"trainer.image_size must be at least {smallest}, {self.backbone}'s smallest. Received: {size}"
            )

    def get_image_size(self) -> int:
        """Returns the height and width of the network's input in pixels: `image_size`, or the backbone's own."""
        return BACKBONES[self.backbone].image_size if self.image_size is None else self.image_size

    def has_soft_labels(self) -> bool:
        """Returns whether a training label is a share of each class, float32 [classes], instead of one class."""
        return self.mix != 'none' or self.label_smoothing > 0

    def get_train_from(self) -> str:
        """Returns `train_from` with 'auto' resolved: 'none', 'all', or the beginning of layer names."""
        return BACKBONES[self.backbone].train_from if self.train_from == 'auto' else self.train_from


@dataclass(frozen=True, kw_only=True)
class TunerConfig(Settings):
    """The search for hyper-parameters before the training; trainer/search_space.py says what is searched."""

    SECTION: ClassVar[str] = 'tuner'

    trials: Annotated[int, Field(ge=0)] = 0
    """Trainings with other hyper-parameters, of which the Trainer takes those with the best val_accuracy; 0 leaves the
    Tuner out."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed with which the hyper-parameters of the trials are drawn."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """What the SavedModel computes with. Read by trainer/export.py; travels in the Trainer's `custom_config`."""

    SECTION: ClassVar[str] = 'export'

    precision: Literal['float32', 'bfloat16'] = 'float32'
    """Precision of the served weights and arithmetic. bfloat16 needs a CPU or GPU that has it, and must agree with
    float32."""
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.995
    """Least share of val images, 0 to 1, that bfloat16 must give the same class as float32; below it the run stops."""


class ExportReport(NamedTuple):
    """What was exported; written as JSON into the SavedModel."""

    precision: str
    """ExportConfig's precision."""
    agreement: float | None
    """Share of val images, 0 to 1, that get the same class as with float32; None for float32, which is not compared."""
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls; written files have this name
    """Images that were compared."""
