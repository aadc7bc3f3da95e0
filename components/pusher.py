"""Pusher: TFX's Pusher, but a version appears in the serving folder completely or not at all, and says how it was made.

The stock executor copies file by file into the numbered folder. If it is killed while it copies, it leaves a folder
that a model server, or a later run, may take for a model.
"""

import datetime
import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.components.pusher import component, executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter
from tfx.utils import json_utils, proto_utils

from components.artifacts import Artifacts, Properties
from components.baseline import Baseline, read_baseline, read_fingerprint
from components.contract import DataContract, parse_contract
from components.data.manifest import read_manifest
from components.errors import PipelineError
from components.hyperparameters import read_hyperparameters
from components.model_contract import read_model_contract
from components.model_gate.metrics import ACCURACY, EXAMPLE_COUNT, read_metrics
from components.model_gate.slices import read_slices
from components.model_gate.verdict import VERDICT_FILE, read_verdict
from components.onnx_model import read_onnx_report
from components.places import Place, link_or_copy_folder, locate
from components.serving.likeness import HOW_TO_PUSH, ServingClasses, find_unlike_version
from components.serving.model_card import CARD_FILE, render_card
from components.serving.version_labels import list_pushed
from components.serving.versions import (
    INFO_FILE,
    PREDICTIONS_FILE,
    REFERENCE_FILE,
    STATISTICS_FOLDER,
    choose_version,
    find_newest_version,
    publish,
    read_info,
    stage_version,
)
from components.serving_check.component import WARMUP_FILE
from components.serving_check.report import read_report

_EVALUATION_KEY, _BASELINE_KEY, _STATISTICS_KEY = 'evaluation', 'baseline', 'statistics'
_HYPERPARAMETERS_KEY = 'hyperparameters'
_DATA_KEY, _SETTINGS_KEY, _DEFAULTS_KEY, _CLASSES_KEY = 'data', 'settings', 'defaults', 'serving_classes'


class _Spec(standard_component_specs.PusherSpec):
    INPUTS: ClassVar = {
        **standard_component_specs.PusherSpec.INPUTS,
        _EVALUATION_KEY: ChannelParameter(type=standard_artifacts.ModelEvaluation),
        _BASELINE_KEY: ChannelParameter(type=Baseline),
        _STATISTICS_KEY: ChannelParameter(type=standard_artifacts.ExampleStatistics),
        _HYPERPARAMETERS_KEY: ChannelParameter(type=standard_artifacts.HyperParameters, optional=True),
    }


def describe_version(saved_model: Path, input_dict: Artifacts, config: dict[str, Any]) -> dict[str, Any]:
    """Collects what a version says about itself: its accuracy, when it was pushed, data, classes, settings, latency,
    and what it has beside the SavedModel.

    Args:
      saved_model: folder of the model that is to be pushed.
      input_dict: the executor's inputs.
      config: the executor's custom_config: 'data', 'settings' and 'defaults'.
    """
    metrics = read_metrics(artifact_utils.get_single_uri(input_dict[_EVALUATION_KEY]))[None]
    data = config[_DATA_KEY]
    report = read_report(artifact_utils.get_single_uri(input_dict[standard_component_specs.INFRA_BLESSING_KEY]))
    baseline = read_baseline(artifact_utils.get_single_uri(input_dict[_BASELINE_KEY]))
    onnx = read_onnx_report(saved_model)
    settings, usual = config.get(_SETTINGS_KEY) or {}, (config.get(_DEFAULTS_KEY) or {}).get('trainer', {})
    found = input_dict.get(_HYPERPARAMETERS_KEY)
    tuned = read_hyperparameters(artifact_utils.get_single_uri(found)) if found else None
    trainer = {**settings.get('trainer', {}), **(tuned or {})}
    return {
        'accuracy': metrics[ACCURACY],
        'images': int(metrics[EXAMPLE_COUNT]),
        'pushed': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'data': read_manifest(locate(data)) or {'folder': data},
        'contract': read_model_contract(saved_model).to_dict(),
        'settings': {**settings, 'trainer': trainer} if tuned else config.get(_SETTINGS_KEY),
        'tuned': tuned,
        'changed': {name: value for name, value in trainer.items() if name not in usual or value != usual[name]},
        'model': read_fingerprint(str(saved_model)),
        'baseline': baseline.version,
        'unlike': baseline.unlike,
        'batch_ms': report.batch_ms,
        'onnx': onnx and onnx._asdict(),
    }


def _add_extra_files(staged: Path, info: dict[str, Any], input_dict: Artifacts) -> None:
    """Adds description, model card, what the Evaluator kept of test, statistics of the data, and warm-up requests.

    Files of the staged folder may be hard links to the Trainer's model, so nothing here writes into an existing file.
    """
    infra_uri = artifact_utils.get_single_uri(input_dict[standard_component_specs.INFRA_BLESSING_KEY])
    extra = (staged / INFO_FILE).parent
    extra.mkdir(exist_ok=True)
    for name in (INFO_FILE.name, CARD_FILE.name, PREDICTIONS_FILE.name, REFERENCE_FILE.name, WARMUP_FILE):
        (extra / name).unlink(missing_ok=True)
    (staged / INFO_FILE).write_text(json.dumps(info, indent=2))
    shutil.copyfile(Path(infra_uri) / WARMUP_FILE, extra / WARMUP_FILE)
    evaluation = Path(artifact_utils.get_single_uri(input_dict[_EVALUATION_KEY]))
    for file in (PREDICTIONS_FILE, REFERENCE_FILE):
        shutil.copyfile(evaluation / file.name, staged / file)
    verdict = read_verdict(str(evaluation)) if (evaluation / VERDICT_FILE).exists() else None
    judged = (verdict.reasons, verdict.baseline) if verdict else ((), '')
    card = render_card(int(staged.name), info, *judged, read_slices(evaluation))
    (staged / CARD_FILE).write_text(card, encoding='utf-8')
    statistics_uri = artifact_utils.get_single_uri(input_dict[_STATISTICS_KEY])
    link_or_copy_folder(Path(statistics_uri), staged / STATISTICS_FOLDER)


def _find_pushed(serving: Place, info: dict[str, Any]) -> int | None:
    """Returns the newest version's number if that version is this very model, else None.

    A run that was killed just after its push has pushed its model already, and so has a run that differs from this one
    only in its gates.
    """
    newest = find_newest_version(serving)
    is_pushed = newest is not None and info['model'] and read_info(newest).get('model') == info['model']
    return int(newest.name) if newest is not None and is_pushed else None


def _check_likeness(serving: Place, contract: DataContract) -> None:
    """Checks that the serving version has the same classes and image size as a model that is to be pushed beside it.

    Raises:
      PipelineError: it has not.
    """
    unlike = find_unlike_version(serving, contract)
    if unlike is not None:
        raise PipelineError(
            f'Nothing was pushed: version {unlike.number}, which is serving in {serving}, has '
            f'{unlike.describe_difference(contract)}, and this model has {contract.describe()}; {HOW_TO_PUSH}.'
        )


def _push(saved_model: Path, staging: Path, serving: Place, info: dict[str, Any], input_dict: Artifacts) -> int:
    """Makes the model a new version, and returns its number."""
    version = choose_version(serving)
    staged = staging / str(version)
    link_or_copy_folder(saved_model, staged)
    _add_extra_files(staged, info, input_dict)
    publish(staged, serving, version)
    return version


class Executor(executor.Executor):
    """Makes a blessed model a version of the serving folder."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Pushes the model if the Evaluator and ServingCheck have blessed it.

        Args:
          input_dict: the stock executor's inputs, 'evaluation', 'baseline' and 'statistics', and, if there was a Tuner,
            'hyperparameters'.
          output_dict: 'pushed_model', which keeps the model too; it gets the stock executor's custom properties.
          exec_properties: 'push_destination' as for the stock executor, and 'custom_config' with 'data', 'settings',
            'defaults' and 'serving_classes'.

        Raises:
          PipelineError: the serving version has other classes or another image size, and 'serving_classes' is 'same'.
        """
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        base_directory = destination.filesystem.base_directory
        serving = locate(base_directory)
        pushed_model = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        with stage_version(serving) as staging:
            if not self.CheckBlessing(input_dict):
                pushed_model.set_int_custom_property('pushed', 0)
                return
            saved_model = Path(self.GetModelPath(input_dict))
            config = json_utils.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
            info = describe_version(saved_model, input_dict, config)
            if self._context:  # what a run on Kubeflow does not know is left empty
                pipeline_info = self._context.pipeline_info
                info['run'] = self._context.pipeline_run_id
                info['pipeline'] = pipeline_info.id if pipeline_info else None
            version = _find_pushed(serving, info)
            if version is None:
                if config[_CLASSES_KEY] == 'same':
                    _check_likeness(serving, parse_contract(info['contract']))
                version = _push(saved_model, staging, serving, info, input_dict)
            list_pushed(serving, version)
            link_or_copy_folder(saved_model, Path(pushed_model.uri))
            pushed_model.set_int_custom_property('pushed', 1)
            pushed_model.set_string_custom_property('pushed_destination', os.path.join(base_directory, str(version)))
            pushed_model.set_string_custom_property('pushed_version', str(version))


class Pusher(component.Pusher):
    """TFX's Pusher with the executor above.

    Args:
      model: the Trainer's.
      model_blessing: the Evaluator's.
      infra_blessing: ServingCheck's; the version keeps its warm-up requests, and how long batches took.
      evaluation: the Evaluator's; the version keeps its accuracy, its predictions on `test`, what the images of `test`
        look like, and its figures in the model card.
      baseline: BaselineFinder's; the version keeps the number of the one it was compared with.
      statistics: StatisticsGen's; the version keeps them, so that the next run's data can be compared with them.
      data: folder or URI of the TFRecords; the version keeps its manifest.
      push_destination: the serving folder.
      hyperparameters: the Tuner's, which take the place of the Trainer's settings in what the version keeps; None
        without a Tuner.
      settings: what the run was made with, as JSON can hold it; the version keeps them, so that `versions` can show how
        two versions differ.
      defaults: what `settings` are if nobody changes them; the version keeps which of the Trainer's differ, because
        later code may have other defaults.
      serving_classes: see `components.serving.likeness`.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        evaluation: types.BaseChannel,
        baseline: types.BaseChannel,
        statistics: types.BaseChannel,
        hyperparameters: types.BaseChannel | None = None,
        data: str,
        push_destination: pusher_pb2.PushDestination,
        serving_classes: ServingClasses = 'same',
        settings: dict[str, Any] | None = None,
        defaults: dict[str, Any] | None = None,
    ):
        config = {
            _DATA_KEY: data,
            _SETTINGS_KEY: settings,
            _DEFAULTS_KEY: defaults,
            _CLASSES_KEY: serving_classes,
        }
        spec = _Spec(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            evaluation=evaluation,
            baseline=baseline,
            statistics=statistics,
            hyperparameters=hyperparameters,
            push_destination=push_destination,
            custom_config=json_utils.dumps(config),
            pushed_model=types.Channel(type=standard_artifacts.PushedModel),
        )
        base_component.BaseComponent.__init__(self, spec=spec)
