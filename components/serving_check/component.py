"""ServingCheck: asks a model as clients will, before it is pushed, without Docker.

TFX's InfraValidator, whose place in the graph this takes, needs Docker or Kubernetes. A refused model is no error: the
run goes on to the Pusher, which does not push what an InfraBlessing refuses.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components import features
from components.serving_check.config import ServingCheckConfig
from components.serving_check.probe import read_sample
from components.serving_check.questions import ask_client, ask_server, make_request, write_warmup
from components.serving_check.report import ServingReport, make_reason, write_report

WARMUP_FILE = 'tf_serving_warmup_requests'  # in the blessing; TensorFlow Serving reads it in a model's assets.extra
_MODEL_KEY, _MODEL_RUN_KEY, _BLESSING_KEY = 'model', 'model_run', 'blessing'
_CONFIG_KEY = 'config'


def make_report(
    result: dict[str, Any], config: ServingCheckConfig, *, size_mb: float, images: int, server: str, seconds: float
) -> ServingReport:
    """Holds what was measured against the bounds."""
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
        images=images,
        server=server,
        seconds=seconds,
    )


def check_model(model: str, predictions: str, warmup: str, config: ServingCheckConfig) -> ServingReport:
    """Asks a model in every way there is here.

    Args:
      model: the SavedModel's folder, a path or URI.
      predictions: the Trainer's features.PREDICTIONS_FILE.
      warmup: file to write the warm-up requests to.
      config: what to ask, and the bounds.
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        version = folder / 'versions' / '1'  # as a model server wants it
        io_utils.copy_dir(model, str(version))
        size_mb = sum(file.stat().st_size for file in version.rglob('*') if file.is_file()) / 1e6
        request = make_request(str(version), predictions, config)
        sample = read_sample(request)
        write_warmup(warmup, request, sample, config.batch_sizes)
        io_utils.copy_file(warmup, path_utils.warmup_file_path(str(version)))  # a server here must take it too
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


class Executor(base_executor.BaseExecutor):
    """Asks the model, and writes an InfraBlessing with the report and the warm-up requests."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the blessing; a refused model is no error.

        Args:
          input_dict: 'model' and 'model_run', the Trainer's.
          output_dict: 'blessing'.
          exec_properties: 'config', a ServingCheckConfig as JSON.
        """
        config = ServingCheckConfig.from_json(exec_properties[_CONFIG_KEY])
        model = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[_MODEL_KEY]))
        model_run = artifact_utils.get_single_uri(input_dict[_MODEL_RUN_KEY])
        blessing = artifact_utils.get_single_instance(output_dict[_BLESSING_KEY])
        predictions = os.path.join(model_run, features.PREDICTIONS_FILE)
        report = check_model(model, predictions, os.path.join(blessing.uri, WARMUP_FILE), config)
        write_report(blessing.uri, report)
        # The marks of TFX's InfraValidator, which the Pusher and `model_utils.is_infra_validated` look for.
        mark = 'INFRA_BLESSED' if report.is_blessed else 'INFRA_NOT_BLESSED'
        io_utils.write_string_file(os.path.join(blessing.uri, mark), '')
        blessing.set_int_custom_property('blessed', int(report.is_blessed))


class _Spec(types.ComponentSpec):
    PARAMETERS: ClassVar = {_CONFIG_KEY: ExecutionParameter(type=str)}
    INPUTS: ClassVar = {
        _MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        _MODEL_RUN_KEY: ChannelParameter(type=standard_artifacts.ModelRun),
    }
    OUTPUTS: ClassVar = {_BLESSING_KEY: ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServingCheck(base_component.BaseComponent):
    """Asks a model as clients will.

    Args:
      model, model_run: the Trainer's.
      config: what is asked, and the bounds.

    Component `outputs` contains:
      - `blessing`: Channel of type `standard_artifacts.InfraBlessing`, with a ServingReport and the warm-up requests.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, model: types.BaseChannel, model_run: types.BaseChannel, config: ServingCheckConfig):
        super().__init__(
            _Spec(
                model=model,
                model_run=model_run,
                config=config.to_json(),
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
            )
        )
