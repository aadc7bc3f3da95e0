"""Evaluator: TFX's Evaluator measures the model, and the model gate blesses it.

TFX's own blessing can only compare single values with bounds. The model gate also compares the change against the
serving model with its confidence interval, and says why. The images are predicted first, at the model's own speed, and
the metrics of both models are then computed from the predictions in one pass.
"""

import logging
import tempfile
from pathlib import Path
from typing import ClassVar

from tfx import types
from tfx.components.evaluator import component, constants, executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import io_utils, json_utils, path_utils, proto_utils

# Not through the package itself, which has these names only once TFX has put them there.
from tensorflow_model_analysis.proto import config_pb2  # isort: skip

from components import features
from components.artifacts import Artifacts, Properties
from components.baseline import Baseline, read_baseline
from components.image_statistics import measure_images
from components.model_contract import read_model_contract
from components.model_gate.config import GateConfig
from components.model_gate.eval_config import BASELINE, CANDIDATE, add_baseline
from components.model_gate.metrics import read_metrics
from components.model_gate.predictions import (
    Probabilities,
    Records,
    find_predictions,
    find_right,
    predict_records,
    read_images,
    read_records,
    write_examples,
    write_predictions,
)
from components.model_gate.slices import measure_slices, write_slices
from components.model_gate.verdict import judge, write_verdict
from components.progress import track
from components.serving.reference import make_reference, write_reference
from components.serving.versions import PREDICTIONS_FILE, REFERENCE_FILE

_log = logging.getLogger(__name__)
_BASELINE_KEY, _GATE_KEY = 'baseline', 'gate'


def _mark(blessing: types.Artifact, model: types.Artifact, is_blessed: bool) -> None:
    """Writes a ModelBlessing with the file and the properties that TFX's Evaluator gives it."""
    name = constants.BLESSED_FILE_NAME if is_blessed else constants.NOT_BLESSED_FILE_NAME
    (Path(blessing.uri) / name).touch()
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(is_blessed))
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)


def _predict_baseline(baseline_uri: str, version: int, records: Records, num_classes: int) -> tuple[Probabilities, str]:
    """Gets the baseline's predictions: those that were kept with the version if they are of these records, else new.

    Returns:
      The predictions, and where they come from, in words.
    """
    saved_model = path_utils.serving_model_path(baseline_uri)
    probabilities, fault = find_predictions(Path(saved_model) / PREDICTIONS_FILE, records, num_classes)
    if probabilities is None:
        source = f'version {version} predicted the {features.TEST_SPLIT} images again: {fault}'
        _log.info('%s', source)
        return predict_records(saved_model, records, f'version {version}'), source
    source = f'the predictions kept with version {version} were used: they are for the same {features.TEST_SPLIT} split'
    _log.info('%s', source)
    return probabilities, source


class Executor(executor.Executor):
    """Makes the predictions, has the stock executor compute the metrics from them, then judges these."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Measures the model and writes its predictions, the verdict and the blessing.

        Args:
          input_dict: the stock executor's inputs, and 'baseline', a Baseline that may hold no model.
          output_dict: the stock executor's outputs; predictions and verdict are written into `evaluation`, and the
            verdict decides `blessing`.
          exec_properties: the stock executor's, and 'gate', a GateConfig as JSON.
        """
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        evaluation_uri = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        baseline_uri = artifact_utils.get_single_uri(input_dict[_BASELINE_KEY])
        baseline = read_baseline(baseline_uri)
        splits = json_utils.loads(exec_properties[standard_component_specs.EXAMPLE_SPLITS_KEY])
        examples = input_dict[standard_component_specs.EXAMPLES_KEY]
        uris = [uri for split in splits for uri in artifact_utils.get_split_uris(examples, split)]
        records = read_records(io_utils.all_files_pattern(uri) for uri in uris)

        saved_model = path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
        contract = read_model_contract(Path(saved_model))
        gate = GateConfig.from_json(exec_properties[_GATE_KEY])
        gate.list_recalls(contract.class_names)  # a class that the data does not have is named before any work
        predictions = {CANDIDATE: predict_records(saved_model, records, 'the new model')}
        write_predictions(Path(evaluation_uri) / PREDICTIONS_FILE.name, records, predictions[CANDIDATE])
        source = ''
        if baseline.version is not None:
            predictions[BASELINE], source = _predict_baseline(
                baseline_uri, baseline.version, records, contract.num_classes
            )
        self._compute_metrics(records, predictions, output_dict, exec_properties)

        measured = measure_images(read_images(records), contract.image_size)
        slices = measure_slices(measured, find_right(predictions[CANDIDATE], records.labels))
        write_slices(Path(evaluation_uri), slices)
        reference = make_reference(measured, predictions[CANDIDATE])
        write_reference(Path(evaluation_uri) / REFERENCE_FILE.name, reference)
        verdict = judge(read_metrics(evaluation_uri), gate, baseline, contract.class_names, slices)
        write_verdict(evaluation_uri, verdict._replace(baseline_predictions=source))
        blessing = artifact_utils.get_single_instance(output_dict[standard_component_specs.BLESSING_KEY])
        _mark(blessing, model, verdict.is_blessed)

    def _compute_metrics(
        self,
        records: Records,
        predictions: dict[str, Probabilities],
        output_dict: Artifacts,
        exec_properties: Properties,
    ) -> None:
        """Runs the stock executor on records that hold the predictions, so that it needs no model."""
        eval_config = config_pb2.EvalConfig()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.EVAL_CONFIG_KEY], eval_config)
        inputs: Artifacts = {}
        if BASELINE in predictions:
            add_baseline(eval_config)
            # Without this input TFX takes the baseline out of the configuration again.
            inputs[standard_component_specs.BASELINE_MODEL_KEY] = [standard_artifacts.Model()]
        evaluation_uri = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        # Beam's workers may be on other machines, which can read this folder.
        with tempfile.TemporaryDirectory(dir=evaluation_uri) as folder, track('metrics', None):
            examples = standard_artifacts.Examples()
            examples.uri, examples.split_names = folder, artifact_utils.encode_split_names([features.TEST_SPLIT])
            split = Path(artifact_utils.get_split_uri([examples], features.TEST_SPLIT))
            split.mkdir()
            write_examples(split / 'predictions.gz', records, predictions)
            inputs[standard_component_specs.EXAMPLES_KEY] = [examples]
            properties = {
                **exec_properties,
                standard_component_specs.EVAL_CONFIG_KEY: proto_utils.proto_to_json(eval_config),
                standard_component_specs.EXAMPLE_SPLITS_KEY: json_utils.dumps([features.TEST_SPLIT]),
            }
            super().Do(inputs, output_dict, properties)


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
      eval_config: what TFMA measures, from `make_eval_config`; the model gate has the thresholds.
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
        eval_config: config_pb2.EvalConfig,
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
