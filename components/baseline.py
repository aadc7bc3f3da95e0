"""The baseline: the model now serving, which a new one is compared with.

A component of ours finds it in the serving folder; open-source Kubeflow Pipelines cannot run a TFX Resolver.
"""

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import path_utils

from components import features
from components.errors import PipelineError
from components.identity_driver import IDENTITY_KEY, IdentityDriver
from components.places import Place, copy_folder, locate
from components.serving.versions import MODEL_FILE, find_serving_version, read_info

BASELINE_FILE = 'baseline.json'
_MODEL_KEY, _BASELINE_KEY = 'model', 'baseline'
_SERVING_KEY = 'serving'


class Baseline(types.Artifact):
    """A folder with BASELINE_FILE, {'version': number or null}, and where there is one the SavedModel, as a Model."""

    TYPE_NAME = 'components.Baseline'  # TFX compiles only names of two parts for Kubeflow


def read_fingerprint(saved_model: str) -> str | None:
    """What tells a SavedModel from others, its weights included; None for one that another tool wrote without."""
    try:
        return tf.saved_model.experimental.read_fingerprint(saved_model).singleprint()
    except (FileNotFoundError, ValueError):
        return None


def find_baseline(serving: Place, fingerprint: str | None) -> Place | None:
    """The version that is serving; if that is the candidate itself, the one the candidate was compared with.

    So a run that is started again finds what it found before it pushed its model.

    Args:
      serving: the folder of versions.
      fingerprint: the candidate's.
    """
    version = find_serving_version(serving)
    info = read_info(version) if version else {}
    if fingerprint is None or info.get('model') != fingerprint:
        return version
    before = serving / str(info.get('baseline'))
    return before if before.is_dir() else None


def read_baseline(baseline_uri: str) -> int | None:
    """The version that a Baseline holds; None where nothing was serving."""
    with tf.io.gfile.GFile(os.path.join(baseline_uri, BASELINE_FILE)) as file:
        return json.load(file)['version']


def _find(input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]) -> Place | None:
    model = artifact_utils.get_single_uri(input_dict[_MODEL_KEY])
    fingerprint = read_fingerprint(path_utils.serving_model_path(model))
    return find_baseline(locate(exec_properties[_SERVING_KEY]), fingerprint)


def check_comparable(version: Place) -> None:
    """Checks that a version can be asked what the Evaluator asks.

    Raises:
      PipelineError: it was not made by this pipeline.
    """
    saved_model = saved_model_pb2.SavedModel.FromString((version / MODEL_FILE).read_bytes())
    if features.SIGNATURE_EXAMPLES not in saved_model.meta_graphs[0].signature_def:
        raise PipelineError(
            f'{version}, which is serving, has no signature `{features.SIGNATURE_EXAMPLES}`, so that no model can be '
            'compared with it; promote a version that this pipeline pushed, or give another serving folder.'
        )


class Driver(IdentityDriver):
    """Looks for the baseline before the component does."""

    def identify(self, input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]) -> str:
        """The version's number; '' where there is none."""
        version = _find(input_dict, exec_properties)
        return version.name if version else ''


class Executor(base_executor.BaseExecutor):
    """Copies the serving version, which may be pruned while the model is evaluated."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the Baseline.

        Args:
          input_dict: 'model', the candidate.
          output_dict: 'baseline'.
          exec_properties: 'serving', the folder of versions.

        Raises:
          PipelineError: see `check_comparable`.
        """
        version = _find(input_dict, exec_properties)
        out = artifact_utils.get_single_uri(output_dict[_BASELINE_KEY])
        if version:
            check_comparable(version)
            copy_folder(version, Path(path_utils.serving_model_dir(out)))
        with tf.io.gfile.GFile(os.path.join(out, BASELINE_FILE), 'w') as file:
            json.dump({'version': version and int(version.name)}, file)


class _Spec(types.ComponentSpec):
    PARAMETERS: ClassVar = {
        _SERVING_KEY: ExecutionParameter(type=str),
        IDENTITY_KEY: ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {_MODEL_KEY: ChannelParameter(type=standard_artifacts.Model)}
    OUTPUTS: ClassVar = {_BASELINE_KEY: ChannelParameter(type=Baseline)}


class BaselineFinder(base_component.BaseComponent):
    """Finds the model that is serving.

    Args:
      model: the candidate, which is no baseline of its own.
      serving: the folder that the Pusher pushes to.

    Component `outputs` contains:
      - `baseline`: Channel of type `Baseline`.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, model: types.BaseChannel, serving: str):
        super().__init__(_Spec(model=model, serving=serving, identity='', baseline=types.Channel(type=Baseline)))
