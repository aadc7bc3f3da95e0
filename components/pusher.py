"""Pusher: TFX's Pusher, but a version appears in the serving folder whole or not at all.

The stock executor copies file by file into the numbered folder; killed on the way, it leaves a version that a
model server, or a later run, may take for a model.
"""

import os
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.pusher import component, executor
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components.staging import stage_folder
from components.versions import choose_version


class Executor(executor.Executor):
    """Stages a blessed model beside the serving folder, then renames it to its version."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See the stock executor; a destination that is a URI, where no rename is atomic, is left to it."""
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        base_directory = destination.filesystem.base_directory
        if '://' in base_directory:
            super().Do(input_dict, output_dict, exec_properties)
            return
        serving = Path(base_directory)
        serving.mkdir(parents=True, exist_ok=True)
        with stage_folder(serving / 'version') as staging:
            destination.filesystem.base_directory = str(staging)
            staged_properties = {
                **exec_properties,
                standard_component_specs.PUSH_DESTINATION_KEY: proto_utils.proto_to_json(destination),
            }
            super().Do(input_dict, output_dict, staged_properties)
            pushed_model = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
            if not pushed_model.get_int_custom_property('pushed'):
                return
            version = choose_version(serving)
            (staged,) = staging.iterdir()
            staged.rename(serving / str(version))
            self._MarkPushed(pushed_model, os.path.join(base_directory, str(version)), str(version))


class Pusher(component.Pusher):
    """TFX's Pusher with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
