"""What TFMA measured: the names of the metrics, and reading them back."""

ACCURACY = 'accuracy'
EXAMPLE_COUNT = 'example_count'


def read_overall_metrics(evaluation_uri: str) -> dict[str, float]:
    """The metrics of the whole test split by name.

    Args:
      evaluation_uri: the Evaluator's `evaluation` artifact.
    """
    import tensorflow_model_analysis as tfma

    overall = tfma.load_eval_result(evaluation_uri).get_metrics_for_slice(())
    return {name: value['doubleValue'] for name, value in overall.items() if 'doubleValue' in value}
