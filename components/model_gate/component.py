"""Evaluator: TFX's Evaluator measures the model, and the model gate blesses it.

TFX's own blessing can only compare single values with bounds. The model gate also compares the change against the
serving model with its confidence interval, and says why. Both models are measured in one pass over the records.
"""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tfx import types
from tfx.components.evaluator import component, constants, executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import json_utils

from components import features
from components.artifacts import Artifacts, Properties
from components.baseline import Baseline, read_baseline
from components.model_gate.config import GateConfig
from components.model_gate.metrics import read_metrics
from components.model_gate.verdict import judge, write_verdict

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto import config_pb2

_BASELINE_KEY, _GATE_KEY = 'baseline', 'gate'


def _mark(blessing: types.Artifact, model: types.Artifact, is_blessed: bool) -> None:
    """Writes a ModelBlessing with the file and the properties that TFX's Evaluator gives it."""
    name = constants.BLESSED_FILE_NAME if is_blessed else constants.NOT_BLESSED_FILE_NAME
    (Path(blessing.uri) / name).touch()
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(is_blessed))
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)


class Executor(executor.Executor):
    """Runs the stock executor, then judges what it measured."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Measures the model and writes the verdict and the blessing.

        Args:
          input_dict: the stock executor's inputs, and 'baseline', a Baseline that may hold no model.
          output_dict: the stock executor's outputs; the verdict is written into `evaluation`, and decides `blessing`.
          exec_properties: the stock executor's, and 'gate', a GateConfig as JSON.
        """
        baseline_uri = artifact_utils.get_single_uri(input_dict[_BASELINE_KEY])
        baseline = read_baseline(baseline_uri)
        baseline_models = []
        if baseline.version is not None:
            baseline_models = [standard_artifacts.Model()]
            baseline_models[0].uri = baseline_uri
        inputs = {**input_dict, standard_component_specs.BASELINE_MODEL_KEY: baseline_models}
        super().Do(inputs, output_dict, exec_properties)
        evaluation_uri = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        gate = GateConfig.from_json(exec_properties[_GATE_KEY])
        verdict = judge(read_metrics(evaluation_uri), gate, baseline)
        write_verdict(evaluation_uri, verdict)
        blessing = artifact_utils.get_single_instance(output_dict[standard_component_specs.BLESSING_KEY])
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        _mark(blessing, model, verdict.is_blessed)


class _Spec(standard_component_specs.EvaluatorSpec):
    PARAMETERS: ClassVar = {
        **standard_component_specs.EvaluatorSpec.PARAMETERS,
        _GATE_KEY: ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        **standard_component_specs.EvaluatorSpec.INPUTS,
        _BASELINE_KEY: ChannelParameter(type=Baseline),
    }


class Evaluator(component.Evaluator):
    """TFX's Evaluator with the executor above.

    Args:
      examples: ImportExampleGen's; the model is measured on the test split.
      model: the Trainer's.
      baseline: BaselineFinder's.
      eval_config: what TFMA measures; it must have no thresholds, because the model gate has them.
      gate: the bounds.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        *,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        baseline: types.BaseChannel,
        eval_config: 'config_pb2.EvalConfig',
        gate: GateConfig,
    ):
        spec = _Spec(
            examples=examples,
            model=model,
            baseline=baseline,
            eval_config=eval_config,
            example_splits=json_utils.dumps([features.TEST_SPLIT]),
            gate=gate.to_json(),
            evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
            blessing=types.Channel(type=standard_artifacts.ModelBlessing),
        )
        base_component.BaseComponent.__init__(self, spec=spec)
