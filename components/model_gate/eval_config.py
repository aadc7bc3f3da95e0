"""What TFMA measures on the test split; components/model_gate/verdict.py holds it against the bounds."""

import tensorflow_model_analysis as tfma

from components import features
from components.model_gate import metrics
from components.model_gate.metrics import ACCURACY, EXAMPLE_COUNT


def make_eval_config() -> tfma.EvalConfig:
    """Accuracy, example count, calibration and confusion matrix, overall and by class, where accuracy is recall.

    With a baseline, which TFX's Evaluator adds, all of them of both models, and on how many images one alone is right.
    """
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
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[features.LABEL_KEY])],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name='ExampleCount', config=f'{{"name": "{EXAMPLE_COUNT}"}}'),
                    tfma.MetricConfig(class_name='SparseCategoricalAccuracy', config=f'{{"name": "{ACCURACY}"}}'),
                    tfma.MetricConfig(class_name='MultiClassConfusionMatrixPlot'),
                    *(
                        tfma.MetricConfig(class_name=metric.__name__, module=metrics.__name__)
                        for metric in (
                            metrics.CalibrationError,
                            metrics.NotFinite,
                            metrics.PairedOutcomes,
                        )
                    ),
                ]
            )
        ],
    )
