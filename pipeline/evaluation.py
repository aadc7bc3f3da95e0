"""The model gate: what TFMA measures on the test split, and the one bound that blesses."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from components import features
from components.metrics import ACCURACY, EXAMPLE_COUNT, read_overall_metrics

if TYPE_CHECKING:
    import tensorflow_model_analysis as tfma


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The bounds a model must keep to be pushed."""

    accuracy: float = 0.90
    """Least accuracy on the whole test split, 0-1; per-class figures are reported and do not bless."""

    def __post_init__(self):
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f'gate.accuracy must be 0 to 1. Received: {self.accuracy!r}')


class Verdict(NamedTuple):
    """What the gate found. accuracy: 0-1, on `count` test images; bound: the least that blesses."""

    accuracy: float
    bound: float
    count: int
    is_blessed: bool

    def to_sentence(self) -> str:
        """Such as 'accuracy 0.412 < 0.500 on 100 test images: not pushed'."""
        relation, end = ('>=', 'pushed') if self.is_blessed else ('<', 'not pushed')
        return (
            f'accuracy {self.accuracy:.3f} {relation} {self.bound:.3f} '
            f'on {self.count:,} {features.TEST_SPLIT} images: {end}'
        )


def make_eval_config(gate: GateConfig) -> 'tfma.EvalConfig':
    """Overall and per-class accuracy, example counts and the confusion matrix; only the overall accuracy blesses.

    The threshold names the overall slice because TFMA applies one without slices to every slice, and a single
    hard class would then refuse the model.
    """
    import tensorflow_model_analysis as tfma

    overall = tfma.SlicingSpec()
    accuracy_bound = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={'value': gate.accuracy})
    )
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
        slicing_specs=[overall, tfma.SlicingSpec(feature_keys=[features.LABEL_KEY])],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name='ExampleCount', config=f'{{"name": "{EXAMPLE_COUNT}"}}'),
                    tfma.MetricConfig(
                        class_name='SparseCategoricalAccuracy',
                        config=f'{{"name": "{ACCURACY}"}}',
                        per_slice_thresholds=[{'slicing_specs': [overall], 'threshold': accuracy_bound}],
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

    overall = read_overall_metrics(evaluation_uri)
    return Verdict(
        accuracy=overall[ACCURACY],
        bound=gate.accuracy,
        count=int(overall[EXAMPLE_COUNT]),
        is_blessed=tfma.load_validation_result(evaluation_uri).validation_ok,
    )
