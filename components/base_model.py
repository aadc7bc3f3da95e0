"""The base model: the pushed version whose weights a training begins with.

A SavedModel holds weights with the BatchNorms folded into them, which cannot be trained on. So the Trainer also writes
the Keras model into it, KERAS_MODEL_FILE, and every version keeps that.
"""

import json
from pathlib import Path
from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import path_utils

from components.artifacts import Artifacts, Properties
from components.contract import BASE_MODEL_FILE, KERAS_MODEL_FILE, WARM_START_SERVING
from components.errors import PipelineError, UsageError
from components.identity_driver import IDENTITY_KEY, IdentityDriver
from components.places import Place, explain_errors, link_or_copy_folder, locate
from components.serving.versions import MODEL_FILE, find_serving_version, read_info

_WARM_START_KEY, _SERVING_KEY, _MODEL_KEY = 'warm_start', 'serving', 'model'


def find_base_model(warm_start: str, serving: str) -> Place | None:
    """Finds the version that a training begins with.

    Args:
      warm_start: the setting `trainer.warm_start`: 'serving', or the path or URI of a version or of a serving folder.
      serving: the serving folder of the run.

    Returns:
      The version's folder; None if the setting is 'serving' and nothing is serving.

    Raises:
      UsageError: there is no model where the setting says.
      PipelineError: the version does not keep a Keras model, or models.config is damaged.
    """
    place = locate(serving if warm_start == WARM_START_SERVING else warm_start)
    with explain_errors(place):
        version = place if (place / MODEL_FILE).exists() else find_serving_version(place)
        if version is None:
            if warm_start == WARM_START_SERVING:
                return None
            raise UsageError(
                f'trainer.warm_start={warm_start}: there is no pushed version; give the folder of one, or a serving '
                'folder.'
            )
        if not (version / KERAS_MODEL_FILE).exists():
            raise PipelineError(
                f'trainer.warm_start={warm_start}: {version} has no {KERAS_MODEL_FILE}, because it was pushed before '
                'versions kept one, or not by this pipeline, and a training cannot begin with what a SavedModel '
                'holds; push one with --set trainer.warm_start=none first.'
            )
    return version


class Driver(IdentityDriver):
    """Looks up the version before the component runs, so that a different version means a different cache key."""

    def identify(self, input_dict: Artifacts, exec_properties: Properties) -> str:
        """Returns the version's name and the fingerprint of its model; '' if nothing is serving."""
        version = find_base_model(exec_properties[_WARM_START_KEY], exec_properties[_SERVING_KEY])
        return '' if version is None else f'{version.name} {read_info(version).get("model") or ""}'


class Executor(base_executor.BaseExecutor):
    """Keeps a copy of the version, which may be removed while the Trainer runs."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Writes the model, and BASE_MODEL_FILE, which says where it comes from.

        Args:
          input_dict: empty.
          output_dict: 'model'; if nothing is serving, it holds BASE_MODEL_FILE alone.
          exec_properties: 'warm_start' and 'serving', see `find_base_model`.

        Raises:
          PipelineError: see `find_base_model`.
        """
        version = find_base_model(exec_properties[_WARM_START_KEY], exec_properties[_SERVING_KEY])
        out = artifact_utils.get_single_uri(output_dict[_MODEL_KEY])
        if version is not None:
            link_or_copy_folder(version, Path(path_utils.serving_model_dir(out)))
        content = {'version': version and version.name}
        Path(out, BASE_MODEL_FILE).write_text(json.dumps(content))


def read_base_version(base_model_uri: str) -> str | None:
    """Reads from BaseModelFinder's `model` which version it is; None if nothing was serving."""
    version: str | None = json.loads(Path(base_model_uri, BASE_MODEL_FILE).read_text())['version']
    return version


class _Spec(types.ComponentSpec):
    PARAMETERS: ClassVar = {
        _WARM_START_KEY: ExecutionParameter(type=str),
        _SERVING_KEY: ExecutionParameter(type=str),
        IDENTITY_KEY: ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {_MODEL_KEY: ChannelParameter(type=standard_artifacts.Model)}


class BaseModelFinder(base_component.BaseComponent):
    """Finds the version that the training begins with; only in graphs with a warm start.

    Args:
      warm_start: the setting `trainer.warm_start`, which is not 'none'.
      serving: the folder that the Pusher pushes to.

    Component `outputs` contains:
      - `model`: Channel of type `standard_artifacts.Model`, for the Trainer's `base_model`.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, warm_start: str, serving: str):
        model = types.Channel(type=standard_artifacts.Model)
        super().__init__(_Spec(warm_start=warm_start, serving=serving, identity='', model=model))
