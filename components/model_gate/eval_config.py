"""What TFMA measures on the test split. components/model_gate/verdict.py compares the results with the bounds."""

# Not through the package itself, which has these names only once TFX has put them there.
from tensorflow_model_analysis.proto import config_pb2

from components import features
from components.model_gate import metrics
from components.model_gate.metrics import ACCURACY, EXAMPLE_COUNT

CANDIDATE, BASELINE = 'candidate', 'baseline'  # the names of the models, and of the features with their predictions


def make_eval_config() -> config_pb2.EvalConfig:
    """Makes TFMA's configuration.

    It names accuracy, example count, calibration and the confusion matrix, for the whole split and for each class. The
    accuracy on the images of one class is that class's recall. TFMA reads the model's predictions from the records that
    `components.model_gate.predictions.write_examples` writes. Where there is a baseline, the Evaluator adds it with
    `add_baseline`; then TFMA measures both models, and on how many images only one of them is right.
    """
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                prediction_key=CANDIDATE,
                label_key=features.LABEL_KEY,
            )
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[features.LABEL_KEY])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(class_name='ExampleCount', config=f'{{"name": "{EXAMPLE_COUNT}"}}'),
                    config_pb2.MetricConfig(class_name='SparseCategoricalAccuracy', config=f'{{"name": "{ACCURACY}"}}'),
                    config_pb2.MetricConfig(class_name='MultiClassConfusionMatrixPlot'),
                    *(
                        config_pb2.MetricConfig(class_name=metric.__name__, module=metrics.__name__)
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


def add_baseline(eval_config: config_pb2.EvalConfig) -> None:
    """Adds the baseline to a configuration from `make_eval_config`, in place."""
    (candidate,) = eval_config.model_specs
    candidate.name = CANDIDATE
    baseline = eval_config.model_specs.add()
    baseline.CopyFrom(candidate)
    baseline.name, baseline.prediction_key, baseline.is_baseline = BASELINE, BASELINE, True
