"""The model gate: what TFMA measures on the test split, the bounds that bless, and the reasons in words."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from components import features
from components.metrics import ACCURACY, EXAMPLE_COUNT, read_metrics

if TYPE_CHECKING:
    import tensorflow_model_analysis as tfma


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The bounds a model must keep to be pushed."""

    accuracy: float = 0.90
    """Least accuracy on the whole test split, 0-1."""
    recall: float = 0.75
    """Least share of each class's test images that are recognised, 0-1: a good mean can hide a class that is lost."""

    def __post_init__(self):
        for name in ('accuracy', 'recall'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'gate.{name} must be 0 to 1. Received: {getattr(self, name)!r}')


class Reason(NamedTuple):
    """A bound and what was found.

    metric: 'accuracy' or 'recall'.
    slice: '' for the whole test split, else a class.
    value, bound: 0-1; the value must not be below the bound.
    count: test images.
    """

    metric: str
    slice: str
    value: float
    bound: float
    count: int

    @property
    def is_kept(self) -> bool:
        """Whether the bound is kept; a value that is not a number keeps none."""
        return self.value >= self.bound

    def to_text(self) -> str:
        """Such as 'accuracy 0.412 < 0.900 on 100 test images', 'recall of cat 0.412 < 0.750 on 10'."""
        name = f'{self.metric} of {self.slice}' if self.slice else self.metric
        images = f'{self.count:,}' if self.slice else f'{self.count:,} {features.TEST_SPLIT} images'
        return f'{name} {self.value:.3f} {">=" if self.is_kept else "<"} {self.bound:.3f} on {images}'


class Verdict(NamedTuple):
    """What the gate found. reasons: the whole split's first, then the classes'; is_blessed: what the Evaluator said."""

    reasons: tuple[Reason, ...]
    is_blessed: bool

    @property
    def overall(self) -> Reason:
        """The whole test split's accuracy."""
        return self.reasons[0]

    def to_sentence(self) -> str:
        """Such as 'accuracy 0.912 >= 0.900 on 100 test images, recall of cat 0.412 < 0.750 on 10: not pushed'."""
        shown = [self.overall, *(reason for reason in self.reasons[1:] if not reason.is_kept)]
        return f'{", ".join(reason.to_text() for reason in shown)}: {"pushed" if self.is_blessed else "not pushed"}'


def make_eval_config(gate: GateConfig) -> 'tfma.EvalConfig':
    """Overall and per-class accuracy, which is the class's recall, example counts and the confusion matrix.

    Each threshold names its slices, because TFMA applies one without slices to every slice.
    """
    import tensorflow_model_analysis as tfma

    overall, by_class = tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[features.LABEL_KEY])

    def make_threshold(slices: tfma.SlicingSpec, bound: float) -> dict:
        lowest = tfma.GenericValueThreshold(lower_bound={'value': bound})
        return {'slicing_specs': [slices], 'threshold': tfma.MetricThreshold(value_threshold=lowest)}

    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                # Named, or TFMA first tries, and fails, to load the SavedModel as a Keras model.
                model_type='tf_generic',
                signature_name=features.SIGNATURE_EXAMPLES,
                prediction_key=features.OUTPUT_PROBABILITIES,
                label_key=features.LABEL_KEY,
            )
        ],
        slicing_specs=[overall, by_class],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name='ExampleCount', config=f'{{"name": "{EXAMPLE_COUNT}"}}'),
                    tfma.MetricConfig(
                        class_name='SparseCategoricalAccuracy',
                        config=f'{{"name": "{ACCURACY}"}}',
                        per_slice_thresholds=[
                            make_threshold(overall, gate.accuracy),
                            make_threshold(by_class, gate.recall),
                        ],
                    ),
                    tfma.MetricConfig(class_name='MultiClassConfusionMatrixPlot'),
                ]
            )
        ],
    )


def read_verdict(evaluation_uri: str, gate: GateConfig) -> Verdict:
    """Reads back what TFMA wrote.

    Args:
      evaluation_uri: the Evaluator's `evaluation` artifact.
      gate: the bounds the Evaluator was run with.
    """
    import tensorflow_model_analysis as tfma

    metrics = read_metrics(evaluation_uri)
    bounds = {None: ('accuracy', '', gate.accuracy)}
    for label in sorted(set(metrics) - {None}):
        bounds[label] = ('recall', features.CLASS_NAMES[label], gate.recall)
    reasons = tuple(
        Reason(name, part, metrics[label][ACCURACY], bound, int(metrics[label][EXAMPLE_COUNT]))
        for label, (name, part, bound) in bounds.items()
    )
    return Verdict(reasons, tfma.load_validation_result(evaluation_uri).validation_ok)
