"""Pusher: TFX's Pusher, but a version appears in the serving folder whole or not at all, and says what it is.

The stock executor copies file by file into the numbered folder; killed on the way, it leaves a version that a
model server, or a later run, may take for a model.
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

from components.baseline import Baseline, read_baseline, read_fingerprint
from components.data.manifest import read_manifest
from components.model_gate.metrics import ACCURACY, EXAMPLE_COUNT, read_metrics
from components.places import locate
from components.serving.version_labels import list_pushed
from components.serving.versions import (
    INFO_FILE,
    STATISTICS_FOLDER,
    choose_version,
    find_newest_version,
    publish,
    read_info,
    stage_version,
)
from components.serving_check.component import WARMUP_FILE

_EVALUATION_KEY, _BASELINE_KEY, _STATISTICS_KEY = 'evaluation', 'baseline', 'statistics'
_DATA_KEY = 'data'


class _Spec(standard_component_specs.PusherSpec):
    INPUTS: ClassVar = {
        **standard_component_specs.PusherSpec.INPUTS,
        _EVALUATION_KEY: ChannelParameter(type=standard_artifacts.ModelEvaluation),
        _BASELINE_KEY: ChannelParameter(type=Baseline),
        _STATISTICS_KEY: ChannelParameter(type=standard_artifacts.ExampleStatistics),
    }


def describe_version(
    saved_model: Path, evaluation_uri: str, baseline_uri: str, data: str, run_id: str | None
) -> dict[str, Any]:
    """What a version keeps of its making: accuracy on so many test images, when, in which run, on which data.

    Args:
      saved_model: the version.
      evaluation_uri: the Evaluator's `evaluation` artifact.
      baseline_uri: the Baseline it was compared with.
      data: folder or URI of the TFRecords.
      run_id: of the pipeline run.
    """
    metrics = read_metrics(evaluation_uri)[None]
    return {
        'accuracy': metrics[ACCURACY],
        'images': int(metrics[EXAMPLE_COUNT]),
        'pushed': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'run': run_id,
        'data': read_manifest(locate(data)) or {'folder': data},
        'model': read_fingerprint(str(saved_model)),
        'baseline': read_baseline(baseline_uri),
    }


class Executor(executor.Executor):
    """Stages a blessed model, then makes it a version with what it keeps of its making."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See the stock executor."""
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        base_directory = destination.filesystem.base_directory
        serving = locate(base_directory)
        with stage_version(serving) as staging:
            destination.filesystem.base_directory = str(staging)
            staged_properties = {
                **exec_properties,
                standard_component_specs.PUSH_DESTINATION_KEY: proto_utils.proto_to_json(destination),
            }
            super().Do(input_dict, output_dict, staged_properties)
            pushed_model = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
            if not pushed_model.get_int_custom_property('pushed'):
                return
            (staged,) = staging.iterdir()
            info = describe_version(
                staged,
                artifact_utils.get_single_uri(input_dict[_EVALUATION_KEY]),
                artifact_utils.get_single_uri(input_dict[_BASELINE_KEY]),
                json_utils.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])[_DATA_KEY],
                self._context and self._context.pipeline_run_id,
            )
            newest = find_newest_version(serving)
            # A run killed just after its push, or blessed again by another gate, has pushed its model already.
            if newest and info['model'] and read_info(newest).get('model') == info['model']:
                version = newest.name
            else:
                version = str(choose_version(serving))
                (staged / INFO_FILE).parent.mkdir(exist_ok=True)
                (staged / INFO_FILE).write_text(json.dumps(info, indent=2))
                statistics_uri = artifact_utils.get_single_uri(input_dict[_STATISTICS_KEY])
                shutil.copytree(statistics_uri, staged / STATISTICS_FOLDER)
                infra_uri = artifact_utils.get_single_uri(input_dict[standard_component_specs.INFRA_BLESSING_KEY])
                shutil.copy(Path(infra_uri) / WARMUP_FILE, (staged / INFO_FILE).parent)
                publish(staged, serving, int(version))
            list_pushed(serving, int(version))
            self._MarkPushed(pushed_model, os.path.join(base_directory, version), version)


class Pusher(component.Pusher):
    """TFX's Pusher with the executor above.

    Args:
      model, model_blessing: the Trainer's and the Evaluator's.
      infra_blessing: ServingCheck's; the version keeps its warm-up requests.
      evaluation: the Evaluator's; the version keeps its figures.
      baseline: BaselineFinder's; the version keeps which one it was compared with.
      statistics: StatisticsGen's; the version keeps them, for the next run's data to be compared with.
      data: folder or URI of the TFRecords, kept too.
      push_destination: the serving folder.
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
        data: str,
        push_destination: pusher_pb2.PushDestination,
    ):
        spec = _Spec(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            evaluation=evaluation,
            baseline=baseline,
            statistics=statistics,
            push_destination=push_destination,
            custom_config=json_utils.dumps({_DATA_KEY: data}),
            pushed_model=types.Channel(type=standard_artifacts.PushedModel),
        )
        base_component.BaseComponent.__init__(self, spec=spec)
