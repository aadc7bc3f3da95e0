"""What TFMA measured: the names of the metrics, and reading them back."""

ACCURACY = 'accuracy'
RECALL = 'recall'  # which is the accuracy of a class's slice
EXAMPLE_COUNT = 'example_count'
CALIBRATION_ERROR = 'calibration_error'
NOT_FINITE = 'not_finite'
# Of the candidate and the baseline together; TFMA adds '_diff' to such names when it reads them.
ONLY_CANDIDATE_RIGHT = 'only_candidate_right'
ONLY_BASELINE_RIGHT = 'only_baseline_right'

Metrics = dict[int | None, dict[str, float]]


def read_metrics(evaluation_uri: str) -> Metrics:
    """The candidate's metrics by name, of each class of the test split, and of the whole split under None.

    Args:
      evaluation_uri: the Evaluator's `evaluation` artifact.
    """
    import tensorflow_model_analysis as tfma

    result = tfma.load_eval_result(evaluation_uri)
    metrics = {}
    for slice_key in result.get_slice_names():
        label = slice_key[0][1] if slice_key else None
        values = result.get_metrics_for_slice(slice_key)
        metrics[label] = {name: value['doubleValue'] for name, value in values.items() if 'doubleValue' in value}
    return metrics
