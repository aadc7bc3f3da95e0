"""The versions that the server has loaded: which ones it should load, their states, their labels, who is using them.

Requests come from many threads. One thread loads and unloads (`ModelStore.follow`), and one may replace the
configuration (`ModelStore.configure`).
"""

import contextlib
import gc
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from components import features
from components.errors import UsageError, to_one_line
from components.model_contract import read_model_contract
from components.saved_model import skip_costly_passes
from components.serving.versions import MODEL_FILE, WARMUP_FILE, list_folders
from pipeline.server.faults import ServiceError, refuse, translate
from pipeline.server.metrics import Metrics
from pipeline.server.tensors import read_tensor

Array = npt.NDArray[Any]
State = get_model_status_pb2.ModelVersionStatus

DEFAULT_SIGNATURE = features.SIGNATURE_SERVING_DEFAULT  # of a request that names none
_MAX_WARMUPS = 1000  # TensorFlow Serving refuses a version with more


class VersionState(NamedTuple):
    """How far a version has come."""

    state: int
    """A value of State."""
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ''
    """Why it ended, if the code is not OK."""


def _read_signatures(folder: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((folder / MODEL_FILE).read_bytes())
    signatures = {}
    for name, signature in model.meta_graphs[0].signature_def.items():
        signatures[name] = meta_graph_pb2.SignatureDef()
        signatures[name].CopyFrom(signature)  # or the whole graph would stay in memory
    return signatures


def read_warmups(folder: Path) -> Iterator[predict_pb2.PredictRequest]:
    """Reads the warm-up requests of a version; none where it has no such file.

    Raises:
      tf.errors.OpError, DecodeError: the file is damaged.
    """
    path = folder / WARMUP_FILE
    for record in tf.data.TFRecordDataset(str(path)) if path.exists() else ():
        yield prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request


def _fits(shape: tuple[int, ...], info: meta_graph_pb2.TensorInfo) -> bool:
    """Whether a tensor has the shape that a signature declares; -1 there is any size."""
    if info.tensor_shape.unknown_rank:
        return True
    expected = [dimension.size for dimension in info.tensor_shape.dim]
    pairs = zip(expected, shape, strict=False)
    return len(expected) == len(shape) and all(wanted in (-1, size) for wanted, size in pairs)


class LoadedVersion:
    """A SavedModel in memory, loaded by TensorFlow alone.

    Args:
      name: of the model.
      number: of the version.
      folder: with the SavedModel.

    Raises:
      OSError, ValueError, tf.errors.OpError, DecodeError: the folder has no SavedModel that TensorFlow can load.
    """

    def __init__(self, name: str, number: int, folder: Path):
        self.name, self.number, self.folder = name, number, folder
        self.contract = read_model_contract(folder)
        declared = _read_signatures(folder)
        self._model = tf.saved_model.load(str(folder))
        self._run = {key: skip_costly_passes(each) for key, each in self._model.signatures.items()}
        self.signatures = {key: declared[key] for key in self._run}  # not the one that initializes the model
        """By name, as the SavedModel declares them."""

    def check_inputs(self, signature: str, inputs: dict[str, Array]) -> None:
        """Checks the names, types and shapes of inputs.

        Raises:
          ServiceError: they are not what the signature takes.
        """
        expected = self.signatures[signature].inputs
        if inputs.keys() != expected.keys():
            asked, wanted = sorted(inputs), sorted(expected)
            extra, missing = sorted(inputs.keys() - expected.keys()), sorted(expected.keys() - inputs.keys())
            raise refuse(
                f'input size does not match signature: {len(asked)}!={len(wanted)} len({{{",".join(asked)}}}) != '
                f'len({{{",".join(wanted)}}}). Sent extra: {{{",".join(extra)}}}. Missing but required: '
                f'{{{",".join(missing)}}}.'
            )
        for key, values in inputs.items():
            wanted_type = tf.dtypes.as_dtype(expected[key].dtype)
            if values.dtype != (object if wanted_type == tf.string else wanted_type.as_numpy_dtype):
                received = 'string' if values.dtype == object else values.dtype.name
                raise refuse(f'Expects {key} of {signature} to be {wanted_type.name} but {received} is provided')
            if not _fits(values.shape, expected[key]):
                shape = [dimension.size for dimension in expected[key].tensor_shape.dim]
                raise refuse(
                    f'Expects {key} of {signature} to have the shape {shape}, where -1 is any size, but '
                    f'{list(values.shape)} is provided'
                )

    def run(self, signature: str, inputs: dict[str, Array]) -> dict[str, Array]:
        """Runs a signature on inputs that `check_inputs` has passed.

        Raises:
          ServiceError: the model refuses the inputs, or TensorFlow fails.
        """
        try:
            tensors = {key: tf.constant(values) for key, values in inputs.items()}
            return {key: value.numpy() for key, value in self._run[signature](**tensors).items()}
        except tf.errors.OpError as error:
            raise translate(error) from error

    def warm_up(self) -> int:
        """Runs the version's warm-up requests, and returns how many there are.

        Raises:
          ServiceError: one fails, or there are more than TensorFlow Serving takes.
          tf.errors.OpError, DecodeError: the file is damaged.
        """
        count = 0
        for request in read_warmups(self.folder):
            if count == _MAX_WARMUPS:
                path = self.folder / WARMUP_FILE
                raise refuse(f'Number of warmup records exceeds the maximum ({_MAX_WARMUPS}) at {path}')
            inputs = {key: read_tensor(key, tensor) for key, tensor in request.inputs.items()}
            signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
            if signature not in self.signatures:
                raise refuse(f'Serving signature key "{signature}" not found.')
            self.check_inputs(signature, inputs)
            self.run(signature, inputs)
            count += 1
        return count


def check_config(config: model_server_config_pb2.ModelServerConfig) -> list[model_server_config_pb2.ModelConfig]:
    """Checks a list of models as TensorFlow Serving does, and returns it.

    Raises:
      UsageError: it is not a list of TensorFlow models with folders of their own.
    """
    models = list(config.model_config_list.config)
    names = [model.name for model in models]
    for model in models:
        if names.count(model.name) > 1:
            raise UsageError(f'Illegal to list model {model.name} multiple times in config list')
        if not model.base_path.startswith('/'):
            raise UsageError(
                f'Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}'
            )
        if model.model_platform not in ('', 'tensorflow'):
            raise UsageError(f'Model {model.name} requests unsupported platform {model.model_platform}')
    return models


def list_wanted(model: model_server_config_pb2.ModelConfig) -> dict[int, Path]:
    """Returns the folders that a model's policy asks for and that there are, by number; the policy's default is latest.

    Raises:
      OSError: the base path cannot be read.
    """
    found = list_folders(Path(model.base_path))
    folders = {number: folder for number, folder in found.items() if isinstance(folder, Path)}
    policy = model.model_version_policy
    if policy.HasField('specific'):
        return {number: folder for number, folder in folders.items() if number in policy.specific.versions}
    if policy.HasField('all'):
        return folders
    return dict(list(folders.items())[-max(policy.latest.num_versions, 1) :])


class ModelStore:
    """Loads versions, lends them to requests, and unloads them when nobody uses them any more.

    Args:
      models: from `check_config`; their labels are taken without a check, see `configure`.
      report: takes a line about each version that is loaded, unloaded, or cannot be loaded.
      metrics: counts.
      warm_up: whether a version runs its warm-up requests before it is available.
      allow_unavailable_labels: --allow_version_labels_for_unavailable_models of TensorFlow Serving.

    Raises:
      UsageError: see `configure`.
    """

    def __init__(
        self,
        models: list[model_server_config_pb2.ModelConfig],
        report: Callable[[str], None],
        metrics: Metrics,
        *,
        warm_up: bool = True,
        allow_unavailable_labels: bool = False,
    ):
        self._report, self._metrics = report, metrics
        self._warm_up, self._allow_unavailable_labels = warm_up, allow_unavailable_labels
        self._changed = threading.Condition()  # guards everything below
        self._models: dict[str, model_server_config_pb2.ModelConfig] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._loaded: dict[str, dict[int, LoadedVersion]] = defaultdict(dict)
        self._states: dict[str, dict[int, VersionState]] = defaultdict(dict)
        self._users: dict[LoadedVersion, int] = defaultdict(int)
        self._failed: dict[str, set[int]] = defaultdict(set)
        self._configurations = 0
        self.configure(models)

    def configure(self, models: list[model_server_config_pb2.ModelConfig]) -> None:
        """Replaces the models and the labels; `follow` then loads and unloads.

        As in TensorFlow Serving nothing is changed at all if a label names a version that is not available. With
        `allow_unavailable_labels` that goes for a label that has a different version now; a new one may come first.

        Raises:
          UsageError: a label names a version that is not available.
        """
        with self._changed:
            for model in models:
                for label, number in model.version_labels.items():
                    before = self._labels.get(model.name, {}).get(label)
                    is_free = self._allow_unavailable_labels and before in (None, number)
                    if not is_free and number not in self._loaded[model.name]:
                        raise UsageError(
                            f'Request to assign label to version {number} of model {model.name}, which is not '
                            'currently available for inference'
                        )
            self._configurations += 1
            self._models = {model.name: model for model in models}
            self._labels = {model.name: dict(model.version_labels) for model in models}

    # What requests use.

    def find_label(self, name: str, label: str) -> int:
        """Returns the number of the version that has a label.

        Raises:
          ServiceError: no version has it.
        """
        with self._changed:
            try:
                return self._labels[name][label]
            except KeyError:
                raise refuse(f'Unrecognized servable version label: {label}') from None

    def list_labels(self, name: str) -> dict[str, int]:
        """Returns the labels of a model; {} for a model that is not there."""
        with self._changed:
            return dict(self._labels.get(name, {}))

    def list_models(self) -> list[str]:
        """Returns the names of the models."""
        with self._changed:
            return list(self._models)

    def list_states(self, name: str, version: int | None = None) -> dict[int, VersionState]:
        """Returns the states of a model's versions, or of one, by number, the oldest version first.

        Raises:
          ServiceError: there is no such model, or no such version of it.
        """
        with self._changed:
            states = dict(sorted(self._states.get(name, {}).items()))
        if version is not None:
            states = {number: state for number, state in states.items() if number == version}
            if not states:
                raise ServiceError(grpc.StatusCode.NOT_FOUND, f'Could not find version {version} of model {name}')
        if not states:
            raise ServiceError(grpc.StatusCode.NOT_FOUND, f'Could not find any versions of model {name}')
        return states

    @contextlib.contextmanager
    def lease(self, name: str, version: int | None, label: str | None) -> Iterator[LoadedVersion]:
        """Gives a version that is not unloaded within the context: the asked one, the labelled one, or the newest.

        Raises:
          ServiceError: there is none.
        """
        if not name:
            raise refuse('ModelSpec has no name specified.')
        with self._changed:
            if label is not None:
                version = self.find_label(name, label)
            loaded = self._loaded.get(name, {})
            number = max(loaded, default=None) if version is None else version
            if number is None or number not in loaded:
                asked = f'Latest({name})' if version is None else f'Specific({name}, {version})'
                raise ServiceError(grpc.StatusCode.NOT_FOUND, f'Servable not found for request: {asked}')
            found = loaded[number]
            self._users[found] += 1
        try:
            yield found
        finally:
            with self._changed:
                self._users[found] -= 1
                self._changed.notify_all()

    # What the thread that loads uses.

    def follow(self) -> None:
        """Loads what the configuration asks for and unloads the rest; returns when both is done.

        A model's version is unloaded only when a wanted one is available, or none is wanted.
        """
        while (missing := self._find_missing()) is not None:
            self._load(*missing)
        with self._changed:
            configuration = self._configurations
        for name, number in self._list_superfluous():
            self._unload(name, number, configuration)

    def _list_wanted(self) -> dict[str, dict[int, Path]]:
        with self._changed:
            models = list(self._models.values())
        wanted = {}
        for model in models:
            try:
                wanted[model.name] = list_wanted(model)
            except OSError as error:  # a volume that is gone for a while must not unload what is there
                self._report(f'{model.base_path} cannot be read: {to_one_line(error)}')
                with self._changed:
                    wanted[model.name] = {v.number: v.folder for v in self._loaded[model.name].values()}
        return wanted

    def _find_missing(self) -> tuple[str, int, Path] | None:
        """Returns the name, number and folder of the newest version that is wanted, not loaded, and did not fail.

        A version that failed is tried again once it has been taken out of what is wanted.
        """
        for name, folders in self._list_wanted().items():
            self._failed[name] &= folders.keys()
            for number in sorted(folders.keys() - self._loaded[name].keys() - self._failed[name], reverse=True):
                return name, number, folders[number]
        return None

    def _set_state(self, name: str, number: int, state: VersionState) -> None:
        with self._changed:
            self._states[name][number] = state

    def _load(self, name: str, number: int, folder: Path) -> None:
        self._set_state(name, number, VersionState(State.LOADING))
        began = time.monotonic()
        try:
            version = LoadedVersion(name, number, folder)
            loaded_s, warmed_s, warmups = time.monotonic() - began, 0.0, 0
            if self._warm_up:
                warmups = version.warm_up()
                warmed_s = time.monotonic() - began - loaded_s
                self._metrics.warmup_latency.labels(str(folder), 'OK').observe(warmed_s * 1e6)
        except tf.errors.OpError as error:
            self._fail(name, number, translate(error))
        except ServiceError as error:
            self._fail(name, number, error)
        except Exception as error:  # noqa: BLE001  (whatever is wrong with a version, the others go on)
            self._fail(name, number, ServiceError(grpc.StatusCode.UNKNOWN, to_one_line(error)))
        else:
            with self._changed:
                self._loaded[name][number] = version
                self._states[name][number] = VersionState(State.AVAILABLE)
            warmed = f', {warmups} warm-up requests in {warmed_s:.1f} s' if warmups else ''
            self._report(f'{name} version {number} is available: loaded in {loaded_s:.1f} s{warmed}')

    def _fail(self, name: str, number: int, error: ServiceError) -> None:
        self._failed[name].add(number)
        self._set_state(name, number, VersionState(State.END, error.code, error.message))
        self._report(f'{name} version {number} cannot be loaded: {error.message}')

    def _list_superfluous(self) -> list[tuple[str, int]]:
        wanted = self._list_wanted()
        with self._changed:
            found = []
            for name, loaded in self._loaded.items():
                numbers = wanted.get(name, {}).keys()
                if not numbers or numbers & loaded.keys():
                    found += [(name, number) for number in loaded.keys() - numbers]
            return found

    def _unload(self, name: str, number: int, configuration: int) -> None:
        with self._changed:
            if configuration != self._configurations:
                return  # the new one may want this version
            version = self._loaded[name].pop(number)
            self._states[name][number] = VersionState(State.UNLOADING)
            while self._users[version]:
                self._changed.wait()
            del self._users[version]
        del version
        gc.collect()  # a SavedModel's functions refer to each other in circles
        self._set_state(name, number, VersionState(State.END))
        self._report(f'{name} version {number} is unloaded')
