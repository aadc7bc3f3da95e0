"""BulkInferrer: predicts unlabelled images with the model of the run, if both gates have accepted it.

It takes the place of TFX's component of that name, which fails with outputs that are text: tfx_bsl's RunInference asks
the `class_name` of an example for its dtype. Nor would it leave out images that cannot be decoded.
"""

from pathlib import Path
from typing import ClassVar

from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import path_utils

from components.artifacts import Artifacts, Properties
from components.identity_driver import IDENTITY_KEY, IdentityDriver
from pipeline.batch.batch import predict_batch
from pipeline.batch.shards import find_input
from pipeline.config import BeamConfig

_INPUT_KEY, _MODEL_KEY, _OUTPUT_KEY = 'input', 'model', 'inference_result'
_MODEL_BLESSING_KEY, _INFRA_BLESSING_KEY = 'model_blessing', 'infra_blessing'


class Driver(IdentityDriver):
    """Looks at the files to predict before the component runs, so that changed files mean a different cache key."""

    def identify(self, input_dict: Artifacts, exec_properties: Properties) -> str:
        """Returns a digest of the names, sizes and times of the files."""
        return find_input(exec_properties[_INPUT_KEY]).digest


class Executor(base_beam_executor.BaseBeamExecutor):
    """Predicts the images, see `pipeline.batch.batch`."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Writes the predictions and the dead letters, or nothing for a model that a gate has refused.

        Args:
          input_dict: 'model'; 'model_blessing', the Evaluator's; 'infra_blessing', ServingCheck's.
          output_dict: 'inference_result', a folder of `pipeline.batch.results`.
          exec_properties: 'input', see `pipeline.batch.shards.find_input`.

        Raises:
          UsageError: there is nothing to predict.
          PipelineError: Beam could not do it.
        """
        model_blessing = artifact_utils.get_single_instance(input_dict[_MODEL_BLESSING_KEY])
        infra_blessing = artifact_utils.get_single_instance(input_dict[_INFRA_BLESSING_KEY])
        if not (model_utils.is_model_blessed(model_blessing) and model_utils.is_infra_validated(infra_blessing)):
            return
        version = Path(path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[_MODEL_KEY])))
        out = Path(artifact_utils.get_single_uri(output_dict[_OUTPUT_KEY]))
        source = exec_properties[_INPUT_KEY]
        beam = BeamConfig(args=tuple(self._beam_pipeline_args or ()))
        predict_batch(version, find_input(source), source, out, 'parquet', beam)


class _Spec(types.ComponentSpec):
    PARAMETERS: ClassVar = {key: ExecutionParameter(type=str) for key in (_INPUT_KEY, IDENTITY_KEY)}
    INPUTS: ClassVar = {
        _MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        _MODEL_BLESSING_KEY: ChannelParameter(type=standard_artifacts.ModelBlessing),
        _INFRA_BLESSING_KEY: ChannelParameter(type=standard_artifacts.InfraBlessing),
    }
    OUTPUTS: ClassVar = {_OUTPUT_KEY: ChannelParameter(type=standard_artifacts.InferenceResult)}


class BulkInferrer(base_beam_component.BaseBeamComponent):
    """Predicts unlabelled images with the model of the run.

    Args:
      model: the Trainer's.
      model_blessing: the Evaluator's.
      infra_blessing: ServingCheck's.
      input: path or URI of what is predicted, see `pipeline.batch.shards.find_input`.

    Component `outputs` contains:
      - `inference_result`: Channel of type `standard_artifacts.InferenceResult`, a folder of `pipeline.batch.results`;
        empty if a gate has refused the model.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        *,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        input: str,
    ):
        super().__init__(
            _Spec(
                model=model,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                input=input,
                identity='',
                inference_result=types.Channel(type=standard_artifacts.InferenceResult),
            )
        )
