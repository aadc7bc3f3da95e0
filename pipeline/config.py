"""PipelineConfig is the tree of all settings; presets are functions that return one.

Each group of settings stands beside the code that reads it. `--set trainer.batch_size=64` overrides any field
(pipeline/overrides.py).
"""

from collections.abc import Callable
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from components.data_gate.config import DataGateConfig
from components.model_gate.config import GateConfig
from components.places import check_place
from components.serving_check.config import ServingCheckConfig
from components.settings import Settings
from pipeline.engines import Engine, check_engine, complete_options, find_engine
from pipeline.kubeflow_config import KubeflowConfig
from trainer.config import ExportConfig, TrainerConfig, TunerConfig


@dataclass(frozen=True, kw_only=True)
class BeamConfig(Settings):
    """How every Beam step runs, and the preparation of the data."""

    SECTION: ClassVar[str] = 'beam'

    args: tuple[str, ...] = ('--runner=FnApiRunner', '--direct_running_mode=in_memory')
    """Beam's pipeline options, which choose the engine; docs/scale.md has them for each."""

    def __post_init__(self) -> None:
        check_engine(self.args)

    @property
    def engine(self) -> Engine:
        """Where Beam does the work."""
        return find_engine(self.args)

    @property
    def options(self) -> list[str]:
        """What Beam is given: `args`, and what every engine needs."""
        return complete_options(self.args)


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Settings):
    """The embedded synthetic data, written when a run is given no other data."""

    SECTION: ClassVar[str] = 'sample'

    train: Annotated[int, Field(ge=50)] = 300
    """Images in the training batches; about a tenth of them becomes the val split."""
    test: Annotated[int, Field(ge=10)] = 100
    """Images in the test batch."""
    seed: int = 0
    """Seed of the generator that draws the images."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(Settings):
    """All settings of one run."""

    name: str
    """Name in ML Metadata and on Kubeflow: lower-case letters, digits and hyphens."""
    root: str
    """Folder that holds everything a run writes; see `Layout`."""
    data: str | None = None
    """Folder or URI with TFRecords in train/, val/ and test/; None takes the embedded sample, written to the root."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in the order of the labels, for TFRecords that others made; a data folder that the `data`
    command wrote says them itself."""
    serving: str | None = None
    """Folder or URI that models are pushed to as numbered versions; None takes ROOT/serving."""
    serving_classes: Literal['same', 'any'] = 'same'
    """Whether a model may be pushed beside a serving version of other classes or another image size: 'same' refuses
    that before anything is trained, 'any' does not, and compares neither the data nor the models."""
    bulk_input: str | None = None
    """Path or URI of images or TFRecords that BulkInferrer predicts with a model that passed its gates; None leaves
    BulkInferrer out."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tuner: TunerConfig = field(default_factory=TunerConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    serving_check: ServingCheckConfig = field(default_factory=ServingCheckConfig)
    data_gate: DataGateConfig = field(default_factory=DataGateConfig)
    beam: BeamConfig = field(default_factory=BeamConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    kubeflow: KubeflowConfig = field(default_factory=KubeflowConfig)

    def __post_init__(self) -> None:
        for name, place in (('data', self.data), ('serving', self.serving), ('bulk_input', self.bulk_input)):
            try:
                check_place(place or '')
            except ValueError as error:
                raise ValueError(f'{name} {error}') from error
        if self.tuner.trials and self.trainer.warm_start != 'none':
            raise ValueError(
                f'tuner.trials must be 0 with trainer.warm_start={self.trainer.warm_start}, which begins with the head '
                f'of a version, while the Tuner searches for another head. Received: {self.tuner.trials}'
            )

    def get_serving(self) -> str:
        """Returns the serving folder, an absolute path or a URI."""
        place = self.serving or str(Layout(self.root).serving)
        return place if '://' in place else str(Path(place).absolute())


FEW_IMAGES = 1_000  # of the train split; the preset `small` is for fewer


class Layout:
    """The files and folders of a run below its root."""

    def __init__(self, root: str):
        self.root = Path(root).absolute()
        self.metadata = self.root / 'metadata.sqlite'  # ML Metadata's store
        self.artifacts = self.root / 'artifacts'  # TFX's pipeline_root
        self.sample = self.root / 'sample'  # the embedded data
        self.serving = self.root / 'serving'  # the numbered versions that TensorFlow Serving watches; see get_serving
        self.logs = self.root / 'logs'


def sample(root: str) -> PipelineConfig:
    """The embedded sample on the real ResNet50 at 224 pixels, with random weights; the last stage is trained.

    Command: python -m pipeline run
    Time and result: see docs/configuration.md, "Presets".
    """
    return PipelineConfig(
        name='cifar10-sample',
        root=root,
        trainer=TrainerConfig(
            weights='none',
            head_units=(64,),
            dropout=0.2,
            learning_rate=1e-4,
            batch_size=16,
            epochs=2,
        ),
        # A model cannot become confident on so few images.
        gate=GateConfig(accuracy=0.8, recall=0.3, calibration_error=0.4),
    )


def cifar10(root: str) -> PipelineConfig:
    """The published recipe: ImageNet weights, conv5 trained, Flatten head, RMSprop 2e-5, batch 32, 10 epochs.

    Command: python -m pipeline run --preset cifar10 --data DIR
    Result: the recipe reports 94% on validation images. It is not yet measured with this pipeline, because the ImageNet
    weights were not available where the pipeline was developed.
    """
    return PipelineConfig(
        name='cifar10-resnet50',
        root=root,
        trainer=TrainerConfig(batchnorm_momentum=0.99),  # Keras' default, which the recipe had
        gate=GateConfig(accuracy=0.9),
    )


def cifar10_fast(root: str) -> PipelineConfig:
    """The best model that 15 minutes of training on 2 cores gave: DenseNet121 at 160 pixels, conv4 and conv5 trained.

    Command: python -m pipeline run --preset cifar10-fast --data DIR
    Time and result: see docs/configuration.md, "Presets". The choices were measured on 8,984 training images:
    - conv4 and conv5 are trained. With all layers frozen, or with only conv5 trained, the network soon knows the
      training images by heart, and stays below 0.84 on others.
    - 160 pixels take half of the arithmetic of 224.
    - The head is the mean of each channel and one Dense layer, as DenseNet was pretrained (Huang et al. 2017), without
      dropout, which slows learning.
    - Adam (Kingma and Ba 2015) at 7e-4 with batches of 64, falling to zero as a cosine. At 2e-4 the accuracy is lower.
    - Images are flipped. Two views of each are cached, because the frozen layers take as long as half an epoch.
    - Class labels are smoothed by 0.1 (Szegedy et al. 2016), and the weights are averaged: after five epochs without
      both, the network knows the training images by heart and less of the others.
    - The bounds are what was measured less three standard errors.
    """
    return PipelineConfig(
        name='cifar10-fast',
        root=root,
        trainer=TrainerConfig(
            backbone='densenet121',
            image_size=160,
            train_from='conv4',
            pooling='average',
            head_units=(),
            optimizer='adam',
            learning_rate=7e-4,
            schedule='cosine',
            batch_size=64,
            epochs=6,
            augmentation='flip',
            cached_views=2,
            label_smoothing=0.1,
            weight_average='ema',
        ),
        gate=GateConfig(accuracy=0.866, recall=0.7),
    )


def cifar10_tune(root: str) -> PipelineConfig:
    """A search for the head and its training, on DenseNet121 with every layer frozen at 160 pixels: 20 trials.

    Command: python -m pipeline run --preset cifar10-tune --data DIR
    Time and result: see docs/training.md, "The search for hyper-parameters".
    - The frozen layers run once for all trials, and only the mean of each channel is kept, so a trial takes seconds.
    - The first trial has the values below. They are those of `cifar10-fast` without what needs trained stages.
    - The bounds are what was measured less three standard errors.
    """
    return PipelineConfig(
        name='cifar10-tune',
        root=root,
        trainer=TrainerConfig(
            backbone='densenet121',
            image_size=160,
            train_from='none',
            pooling='average',
            head_units=(),
            optimizer='adam',
            learning_rate=1e-3,
            schedule='cosine',
            batch_size=64,
            epochs=15,
        ),
        tuner=TunerConfig(trials=20),
        gate=GateConfig(accuracy=0.757, recall=0.6),
    )


def cifar10_best(root: str) -> PipelineConfig:
    """The most accurate choices: ResNet101 at 224 pixels, every layer trained, smoothed labels.

    Command: python -m pipeline run --preset cifar10-best --data DIR
    Result: the accuracy is not measured, because the ImageNet weights were not available where the pipeline was
    developed. Use a GPU: an image takes about four times the arithmetic of the recipe. The choices come from the
    literature; the values that it leaves open are estimates:
    - Every layer is trained: SimCLR's supervised baseline (Chen et al. 2020, the appendix's table of a standard
      ResNet50, quoted from memory) reaches 97.5% on CIFAR-10 so, and 93.6% with all layers frozen.
    - ResNet101: the accuracy after fine-tuning follows that on ImageNet, r = 0.96 (Kornblith et al. 2019), and
      ResNet101 has the higher one of the two ResNets here.
    - 224 pixels, the size at which the backbone was pretrained, so that objects have the size its filters look for.
    - SGD with momentum 0.9, as both papers fine-tune; 1e-3 for batches of 64 is an estimate.
    - Class labels smoothed by 0.1 (Szegedy et al. 2016), against overconfidence where the train split is memorized.
    The gate's accuracy is the recipe's 94%: a model that does not reach it was not worth its price.
    """
    return PipelineConfig(
        name='cifar10-best',
        root=root,
        trainer=TrainerConfig(
            backbone='resnet101',
            train_from='all',
            pooling='average',
            head_units=(),
            label_smoothing=0.1,
            optimizer='sgd',
            learning_rate=1e-3,
            batch_size=64,
            epochs=20,
        ),
        gate=GateConfig(accuracy=0.94),
    )


def cifar100(root: str) -> PipelineConfig:
    """The choices of `cifar10-fast` for CIFAR-100, whose images have the same size.

    Command: python -m pipeline run --preset cifar100 --data DIR
    Result: not measured, because the archive was not available where the pipeline was developed. The bounds are
    estimates which a model that was trained as intended keeps, with the 100 fine and with the 20 coarse classes.
    """
    return replace(cifar10_fast(root), name='cifar100', gate=GateConfig(accuracy=0.6, recall=0.2))


def folder(root: str) -> PipelineConfig:
    """Your own pictures, 1,000 or more: the choices of `cifar10-fast` at 224 pixels, for more epochs.

    Command: python -m pipeline run --preset folder --data DIR
    Result: not measured, since nobody's pictures are like another's. Where it differs from `cifar10-fast`:
    - 224 pixels, the size at which the network was pretrained. Pictures have the detail for it, which CIFAR-10's 32
      pixels have not.
    - 12 epochs instead of 6, because fewer pictures than CIFAR-10's 8,984 make fewer steps: 192 with 1,000.
    - The bounds are such that any useful model keeps them, of 3 classes or of 300. The one that counts is that the
      model is better than always answering the most frequent class; see docs/gates.md. A class that must not be lost
      gets a bound by its name: --set gate.recall_by_class=CLASS=0.8.
    """
    base = cifar10_fast(root)
    return replace(
        base,
        name='own-images',
        trainer=replace(base.trainer, image_size=224, epochs=12),
        gate=GateConfig(accuracy=0.3, recall=0.0, calibration_error=0.4),
    )


def small(root: str) -> PipelineConfig:
    """Your own pictures, fewer than 1,000: all layers frozen, eight augmented views of each picture, a small head.

    Command: python -m pipeline run --preset small --data DIR
    Time and result: see docs/configuration.md, "Few images". Where it differs from `folder`:
    - All layers are frozen. Training conv5 too was not better on 240 images, and its epochs took ten times as long.
    - Eight views of each image, flipped and shifted, are cached; frozen layers leave only the mean of each channel, so
      the views take 4 KB each.
    - The head has one more layer, with dropout, and AdamW (Loshchilov and Hutter 2019) trains it.
    - Batches of 32 for 30 epochs, so that there are enough steps: 240 with 240 images.
    """
    base = folder(root)
    return replace(
        base,
        name='own-images-small',
        trainer=replace(
            base.trainer,
            train_from='none',
            head_units=(128,),
            dropout=0.5,
            optimizer='adamw',
            learning_rate=1e-3,
            batch_size=32,
            epochs=30,
            augmentation='flip_crop',
            cached_views=8,
            weight_average='none',
        ),
    )


PRESETS: dict[str, Callable[[str], PipelineConfig]] = {
    'sample': sample,
    'cifar10': cifar10,
    'cifar10-fast': cifar10_fast,
    'cifar10-tune': cifar10_tune,
    'cifar10-best': cifar10_best,
    'cifar100': cifar100,
    'folder': folder,
    'small': small,
}
