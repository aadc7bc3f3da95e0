"""ServingCheck: sends a model requests as clients will, before it is pushed, and needs no Docker for that.

It takes the place of TFX's InfraValidator, which needs Docker or Kubernetes. A refused model is not an error: the run
goes on to the Pusher, which does not push a model that its InfraBlessing refuses.
"""

import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import path_utils

from components import features
from components.artifacts import Artifacts, Properties
from components.model_contract import read_model_contract
from components.places import link_or_copy_folder
from components.serving import versions
from components.serving_check.config import ServingCheckConfig
from components.serving_check.probe import read_sample
from components.serving_check.questions import ask_client, ask_server, make_request, write_pixels, write_warmup
from components.serving_check.report import ServingReport, make_reason, make_skipped_report, write_report

WARMUP_FILE = versions.WARMUP_FILE.name  # in the blessing
_MODEL_KEY, _MODEL_RUN_KEY, _MODEL_BLESSING_KEY = 'model', 'model_run', 'model_blessing'
_BLESSING_KEY, _CONFIG_KEY, _RESIZE_KEY = 'blessing', 'config', 'resize'


def make_report(
    result: dict[str, Any], config: ServingCheckConfig, *, size_mb: float, images: int, server: str, seconds: float
) -> ServingReport:
    """Compares what was measured with the bounds.

    Args:
      result: from `ask_client`, with what `ask_server` added.
      config: the bounds.
      size_mb: megabytes of the model's files.
      images: number of recorded images that were asked with.
      server: which TensorFlow Serving was asked as well, or why none was.
      seconds: duration of the whole check.
    """
    figures, differences = result['figures'], result['differences']
    reasons = [make_reason('size', '', size_mb, config.max_size_mb, 1)]
    if 'memory_mb' in figures:
        reasons.append(make_reason('memory', '', figures['memory_mb'], config.max_memory_mb, 1))
    if 'p99_ms' in figures:
        signature = features.SIGNATURE_SERVING_DEFAULT
        reasons.append(make_reason('latency', signature, figures['p99_ms'], config.max_latency_ms, config.requests))
    for name, difference in differences.items():
        reasons.append(make_reason('difference', name, difference, config.max_difference, images))
    reasons += [make_reason(**fault) for fault in result['failures']]
    return ServingReport(
        is_blessed=all(reason.is_kept for reason in reasons),
        reasons=tuple(reasons),
        size_mb=size_mb,
        **{name: figures.get(name) for name in ('memory_mb', 'load_s', 'p50_ms', 'p99_ms')},
        differences=differences,
        batch_ms=result['batch_ms'],
        images=images,
        server=server,
        seconds=seconds,
    )


def check_model(
    model: Path, predictions: Path, warmup: Path, config: ServingCheckConfig, *, is_stretched: bool = False
) -> ServingReport:
    """Sends a model requests in every way that is possible on this machine.

    Args:
      model: the SavedModel's folder.
      predictions: the Trainer's features.PREDICTIONS_FILE.
      warmup: file to write the warm-up requests to.
      config: what to ask, and the bounds.
      is_stretched: whether the model squeezes a whole image into its square (trainer.resize=stretch).
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        version = folder / 'versions' / '1'  # where a model server looks for it
        link_or_copy_folder(model, version)
        size_mb = sum(file.stat().st_size for file in version.rglob('*') if file.is_file()) / 1e6
        contract, pixels = read_model_contract(version), folder / 'pixels.npy'
        write_pixels(predictions, pixels, contract, is_stretched=is_stretched)
        request = make_request(str(version), str(predictions), str(pixels), config, contract)
        sample = read_sample(request)
        write_warmup(warmup, request, sample, config.batch_sizes)
        _add_warmup(version, warmup)
        result = ask_client(request, folder)
        server = 'no TensorFlow Serving asked'
        if not result['failures'] and config.server != 'off':
            is_required = config.server == 'required'
            server, faults, differences = ask_server(version.parent, sample, request, is_required=is_required)
            result['failures'] += faults
            result['differences'] |= differences
    seconds = time.monotonic() - begin
    images = len(sample.probabilities)
    return make_report(result, config, size_mb=size_mb, images=images, server=server, seconds=seconds)


def _add_warmup(version: Path, warmup: Path) -> None:
    """Puts the warm-up requests into the model, so that a server that is asked here runs them when it loads."""
    target = Path(path_utils.warmup_file_path(str(version)))
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)  # it may be a link to the Trainer's file
    target.write_bytes(warmup.read_bytes())


class Executor(base_executor.BaseExecutor):
    """Checks the model, and writes an InfraBlessing with the report and the warm-up requests."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Writes the blessing. A refused model is not an error.

        A model that the model gate has refused is not asked anything, because it will not be pushed in any case.

        Args:
          input_dict: 'model' and 'model_run', the Trainer's; 'model_blessing', the Evaluator's.
          output_dict: 'blessing'.
          exec_properties: 'config', a ServingCheckConfig as JSON; 'resize', the setting trainer.resize.
        """
        config = ServingCheckConfig.from_json(exec_properties[_CONFIG_KEY])
        model = Path(path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[_MODEL_KEY])))
        model_run = Path(artifact_utils.get_single_uri(input_dict[_MODEL_RUN_KEY]))
        blessing = artifact_utils.get_single_instance(output_dict[_BLESSING_KEY])
        folder = Path(blessing.uri)
        if model_utils.is_model_blessed(artifact_utils.get_single_instance(input_dict[_MODEL_BLESSING_KEY])):
            is_stretched = exec_properties[_RESIZE_KEY] == 'stretch'
            predictions = model_run / features.PREDICTIONS_FILE
            report = check_model(model, predictions, folder / WARMUP_FILE, config, is_stretched=is_stretched)
        else:
            report = make_skipped_report()
        write_report(folder, report)
        # The file and the property that TFX's InfraValidator writes; the Pusher looks at the property.
        mark = 'INFRA_BLESSED' if report.is_blessed else 'INFRA_NOT_BLESSED'
        (folder / mark).touch()
        blessing.set_int_custom_property('blessed', int(report.is_blessed))


class _Spec(types.ComponentSpec):
    PARAMETERS: ClassVar = {key: ExecutionParameter(type=str) for key in (_CONFIG_KEY, _RESIZE_KEY)}
    INPUTS: ClassVar = {
        _MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        _MODEL_RUN_KEY: ChannelParameter(type=standard_artifacts.ModelRun),
        _MODEL_BLESSING_KEY: ChannelParameter(type=standard_artifacts.ModelBlessing),
    }
    OUTPUTS: ClassVar = {_BLESSING_KEY: ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServingCheck(base_component.BaseComponent):
    """Sends a model requests as clients will.

    Args:
      model: the Trainer's.
      model_run: the Trainer's, with the trained network's predictions.
      model_blessing: the Evaluator's; a model that it refuses is not asked anything.
      config: what is asked, and the bounds.
      resize: the setting trainer.resize, which says what the model makes of images that are no squares.

    Component `outputs` contains:
      - `blessing`: Channel of type `standard_artifacts.InfraBlessing`, with a ServingReport and the warm-up requests.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        model_run: types.BaseChannel,
        model_blessing: types.BaseChannel,
        config: ServingCheckConfig,
        resize: str,
    ):
        super().__init__(
            _Spec(
                model=model,
                model_run=model_run,
                model_blessing=model_blessing,
                config=config.to_json(),
                resize=resize,
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
            )
        )
