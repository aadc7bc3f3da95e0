"""LocalRunner: runs the compiled graph in this process, component after component, and reports what each one did.

TFX's LocalDagRunner does the same and reports nothing; the loop here is its loop with a callback. LocalRunner also
cleans up after a run that was killed: it marks executions that are still recorded as running as failed, and removes
their files. It marks artifacts whose files are gone as deleted, so that the component that made them runs again.
"""

import collections
import datetime
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import Message
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import (
    launcher,
    runtime_parameter_utils,
    tfx_runner,
)
from tfx.orchestration.portable.mlmd import execution_lib
from tfx.proto.orchestration import local_deployment_config_pb2, pipeline_pb2

from components.errors import PipelineError, to_one_line

_State = metadata_store_pb2.Execution.State
_LIVE = metadata_store_pb2.Artifact.LIVE


class NodeResult(NamedTuple):
    """What came of one component."""

    node_id: str
    """The component's id in the pipeline."""
    outputs: Mapping[str, Sequence[types.Artifact]]
    """Its output artifacts by key."""
    is_reused: bool
    """Whether an earlier run had made the outputs, so that the component did not run."""
    seconds: float
    """How long it took."""
    lost: tuple[str, ...]
    """Folders of outputs that an earlier run had made and that were gone when this run began."""


def fail_abandoned_executions(store: metadata.Metadata, artifacts: Path) -> None:
    """Marks executions that a killed run left as running as failed, and removes the files that they began to write.

    Call it only for a root that no other run is using.

    Args:
      store: ML Metadata.
      artifacts: the pipeline root, on this machine.
    """
    for execution in store.store.get_executions():
        if execution.last_known_state != _State.RUNNING:
            continue
        for folder in (*artifacts.glob(f'*/*/{execution.id}'), *artifacts.glob(f'*/.system/*/{execution.id}')):
            shutil.rmtree(folder, ignore_errors=True)
        execution.last_known_state = _State.FAILED
        store.store.put_executions([execution])


def forget_lost_artifacts(store: metadata.Metadata, artifacts: Path) -> dict[str, tuple[str, ...]]:
    """Marks artifacts whose folder is gone as deleted, so that they are not reused as results.

    Args:
      store: ML Metadata.
      artifacts: the pipeline root, on this machine.

    Returns:
      The folders that are gone, by the component that made them.
    """
    lost: dict[str, tuple[str, ...]] = collections.defaultdict(tuple)
    for artifact in store.store.get_artifacts():
        folder = Path(artifact.uri)
        if artifact.state == _LIVE and folder.is_relative_to(artifacts) and not folder.exists():
            artifact.state = metadata_store_pb2.Artifact.DELETED
            store.store.put_artifacts([artifact])
            lost[folder.relative_to(artifacts).parts[0]] += (artifact.uri,)
    return lost


class LocalRunner(tfx_runner.IrBasedRunner):
    """Runs a pipeline in this process.

    Args:
      on_result: is called after every component.
      run_id: the run's id in ML Metadata and in the versions that it pushes; None for the time of its start.
      on_start: is called with a component's id before it runs or is reused.
    """

    def __init__(
        self,
        on_result: Callable[[NodeResult], None],
        run_id: str | None = None,
        on_start: Callable[[str], None] = lambda node_id: None,
    ):
        self._on_result, self._on_start = on_result, on_start
        self._run_id = run_id

    def run_with_ir(self, pipeline: pipeline_pb2.Pipeline, run_options: pipeline_pb2.RunOptions | None = None) -> None:
        """Runs the components of a compiled pipeline in their topological order.

        Raises:
          PipelineError: a component failed; the components after it are not run.
        """
        if run_options:
            raise ValueError('LocalRunner does not run parts of a pipeline; an unchanged component is reused anyway.')
        run_id = self._run_id or datetime.datetime.now().isoformat()
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
        )
        deployment = runner_utils.extract_local_deployment_config(pipeline)
        connection = deployment.metadata_connection_config
        connection_config = getattr(connection, connection.WhichOneof('connection_config'))
        artifacts = Path(pipeline.runtime_spec.pipeline_root.field_value.string_value)
        with metadata.Metadata(connection_config) as store:
            fail_abandoned_executions(store, artifacts)
            lost = forget_lost_artifacts(store, artifacts)
        for node in pipeline.nodes:
            self._on_start(node.pipeline_node.node_info.id)
            result = self._run_node(pipeline, node.pipeline_node, deployment, connection_config)
            self._on_result(result._replace(lost=lost.get(result.node_id, ())))

    def _run_node(
        self,
        pipeline: pipeline_pb2.Pipeline,
        node: pipeline_pb2.PipelineNode,
        deployment: local_deployment_config_pb2.LocalDeploymentConfig,
        connection_config: Message,
    ) -> NodeResult:
        node_id = node.node_info.id
        begin = time.monotonic()
        component_launcher = launcher.Launcher(
            pipeline_node=node,
            mlmd_connection=metadata.Metadata(connection_config),
            pipeline_info=pipeline.pipeline_info,
            pipeline_runtime_spec=pipeline.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
        )
        try:
            execution_id = component_launcher.launch().execution_id
        except PipelineError:
            raise
        except Exception as error:
            raise PipelineError(f'{node_id} failed: {to_one_line(error)}') from error
        with metadata.Metadata(connection_config) as store:
            (execution,) = store.store.get_executions_by_id([execution_id])
            outputs = execution_lib.get_output_artifacts(store, execution_id)
        # The launcher only records, and does not raise, when it cannot resolve a component's inputs.
        if not execution_lib.is_execution_successful(execution):
            raise PipelineError(f'{node_id} failed: its inputs could not be resolved')
        is_reused = execution.last_known_state == _State.CACHED
        return NodeResult(node_id, outputs, is_reused, time.monotonic() - begin, lost=())
