"""Tuner: TFX's own, which tells the tuner_fn where the results go.

TFX gives a tuner_fn a folder that it removes at the end. This one gives it the folder of the artifact `tuner_results`,
beside which, as beside the Trainer's `model_run`, there is room for what a killed attempt leaves to the next one.
"""

from tfx import components
from tfx.components.tuner import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs

from components.artifacts import Artifacts, Properties


class Executor(executor.Executor):
    """Calls the tuner_fn, runs the search, and writes the best hyper-parameters."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Does what the stock executor does; the `working_dir` of the tuner_fn is the artifact `tuner_results`."""
        results = artifact_utils.get_single_uri(output_dict[standard_component_specs.TUNER_RESULTS_KEY])
        tuner = executor.search(input_dict, exec_properties, results)
        executor.write_best_hyperparameters(tuner, output_dict)


class Tuner(components.Tuner):
    """TFX's Tuner with the executor of this module."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
