"""The baseline: the model that is serving now, which a new model is compared with.

A component of ours looks it up in the serving folder, because open-source Kubeflow Pipelines cannot run a TFX Resolver.
"""

import json
from pathlib import Path
from typing import ClassVar, NamedTuple

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import path_utils

from components import features
from components.artifacts import Artifacts, Properties
from components.contract import DataContract
from components.errors import PipelineError
from components.identity_driver import IDENTITY_KEY, IdentityDriver
from components.model_contract import read_model_contract
from components.places import Place, link_or_copy_folder, locate
from components.serving.likeness import find_unlike_version
from components.serving.versions import MODEL_FILE, find_serving_version, read_info

BASELINE_FILE = 'baseline.json'
_MODEL_KEY, _BASELINE_KEY = 'model', 'baseline'
_SERVING_KEY = 'serving'


class Baseline(types.Artifact):
    """A folder with BASELINE_FILE and, if there is a baseline, its SavedModel where a TFX Model artifact has it."""

    TYPE_NAME = 'components.Baseline'  # TFX compiles only names of two parts for Kubeflow


class BaselineInfo(NamedTuple):
    """What BASELINE_FILE says, as a JSON object with these keys: the baseline's number, or why there is none."""

    version: int | None = None
    """Number of the version that is the baseline; None if there is no baseline."""
    candidate: int | None = None
    """Number of the candidate itself, if it is the serving version; else None."""
    removed: int | None = None
    """Number of the candidate's baseline, if that version has been removed since; else None."""
    unlike: int | None = None
    """Number of the version that is, or was when the candidate was pushed, serving and unlike it; else None."""
    difference: str = ''
    """What differs, in words; '' if there is no such version, or the candidate was pushed beside it already."""

    def describe_absence(self) -> str:
        """Says why there is no baseline, as part of a sentence."""
        if self.candidate is None and self.unlike is not None:
            return f'version {self.unlike} has {self.difference}'
        if self.candidate is None:
            # TFX reuses this when the same run is started again, so it must be true after the model was pushed too.
            return 'nothing was serving when this model was first evaluated'
        itself = f'this model is serving already, as version {self.candidate}'
        if self.unlike is not None:
            return f'{itself}, and version {self.unlike}, which was serving before, has other classes or images'
        if self.removed is None:
            return f'{itself}, and nothing was serving when it was pushed'
        return f'{itself}, and version {self.removed}, which it was compared with when it was pushed, has been removed'


def read_fingerprint(saved_model: str) -> str | None:
    """Reads the identity of a SavedModel, which covers its weights.

    Args:
      saved_model: path of the SavedModel's folder.

    Returns:
      TensorFlow's fingerprint; None if a different tool wrote the model without one.
    """
    try:
        return str(tf.saved_model.experimental.read_fingerprint(saved_model).singleprint())
    except (FileNotFoundError, ValueError):
        return None


def find_baseline(serving: Place, fingerprint: str | None, contract: DataContract) -> tuple[Place | None, BaselineInfo]:
    """Finds the version that a candidate is compared with.

    This is the serving version, unless that has other classes or another image size: then there is none. If the
    candidate is itself the serving version, because an earlier run has pushed it, its baseline is the version that it
    was compared with before that push.

    Args:
      serving: the folder of versions.
      fingerprint: the candidate's, from `read_fingerprint`.
      contract: the candidate's.

    Returns:
      The version's folder, None if there is no baseline; and what BASELINE_FILE is to say.
    """
    version = find_serving_version(serving)
    if version is None:
        return None, BaselineInfo()
    number, info = int(version.name), read_info(version)
    if fingerprint is None or info.get('model') != fingerprint:
        unlike = find_unlike_version(serving, contract)
        if unlike is not None:
            return None, BaselineInfo(unlike=unlike.number, difference=unlike.describe_difference(contract))
        return version, BaselineInfo(version=number)
    before = info.get('baseline')
    if before is None:
        return None, BaselineInfo(candidate=number, unlike=info.get('unlike'))
    if not (serving / str(before) / MODEL_FILE).exists():
        return None, BaselineInfo(candidate=number, removed=before)
    return serving / str(before), BaselineInfo(version=before, candidate=number)


def read_baseline(baseline_uri: str) -> BaselineInfo:
    """Reads which version a Baseline artifact holds, or why it holds none."""
    return BaselineInfo(**json.loads((Path(baseline_uri) / BASELINE_FILE).read_text()))


def _find(input_dict: Artifacts, exec_properties: Properties) -> tuple[Place | None, BaselineInfo]:
    model = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[_MODEL_KEY]))
    contract = read_model_contract(Path(model))
    return find_baseline(locate(exec_properties[_SERVING_KEY]), read_fingerprint(model), contract)


def check_comparable(version: Place) -> None:
    """Checks that a version has the signature through which the Evaluator gets predictions.

    Raises:
      PipelineError: it does not, so it was not made by this pipeline.
    """
    saved_model = saved_model_pb2.SavedModel.FromString((version / MODEL_FILE).read_bytes())
    if features.SIGNATURE_EXAMPLES not in saved_model.meta_graphs[0].signature_def:
        raise PipelineError(
            f'{version}, which is serving, has no signature `{features.SIGNATURE_EXAMPLES}`, so no model can be '
            'compared with it; promote a version that this pipeline pushed, or give a different serving folder.'
        )


class Driver(IdentityDriver):
    """Looks up the baseline before the component runs, so that a different baseline means a different cache key."""

    def identify(self, input_dict: Artifacts, exec_properties: Properties) -> str:
        """Returns the baseline's number, also where it has been removed; '' if the candidate never had one.

        A first run finds nothing serving, and the same run started again finds its own model serving. Both get '',
        so that the second run reuses the results of the first. For the same reason both get the number of a version
        that is unlike the candidate.
        """
        _, info = _find(input_dict, exec_properties)
        if info.unlike is not None:
            return f'{info.unlike} unlike'
        if info.removed is not None:
            return f'{info.removed} removed'
        return '' if info.version is None else str(info.version)


class Executor(base_executor.BaseExecutor):
    """Keeps a copy of the serving version, which may be removed while the candidate is evaluated."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Writes the Baseline.

        Args:
          input_dict: 'model', the candidate.
          output_dict: 'baseline'.
          exec_properties: 'serving', the folder of versions.

        Raises:
          PipelineError: see `check_comparable`.
        """
        version, info = _find(input_dict, exec_properties)
        out = Path(artifact_utils.get_single_uri(output_dict[_BASELINE_KEY]))
        if version is not None:
            check_comparable(version)
            link_or_copy_folder(version, Path(path_utils.serving_model_dir(str(out))))
        (out / BASELINE_FILE).write_text(json.dumps(info._asdict()))


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
      model: the candidate, which must not become its own baseline.
      serving: the folder that the Pusher pushes to.

    Component `outputs` contains:
      - `baseline`: Channel of type `Baseline`.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, model: types.BaseChannel, serving: str):
        super().__init__(_Spec(model=model, serving=serving, identity='', baseline=types.Channel(type=Baseline)))
