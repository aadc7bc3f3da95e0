"""What TFMA measured: the names of the metrics, and reading them back."""

ACCURACY = 'accuracy'
EXAMPLE_COUNT = 'example_count'


def read_metrics(evaluation_uri: str) -> dict[int | None, dict[str, float]]:
    """The metrics by name, of each class of the test split, and of the whole split under None.

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
