"""CuratedSchemaGen: TFX's ImportSchemaGen for the schema that ships with this package.

The stock component takes a path, which has two faults: the cache key holds the path and not the content, so that
results of the old schema would be reused after an edit, and a path of the machine that compiles a pipeline does not
exist in a container. This component takes the schema's digest instead, and finds the file where it runs.
"""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.components.schema_gen.import_schema_gen import component, executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts, standard_component_specs
from tfx.types.component_spec import ExecutionParameter

from components.artifacts import Artifacts, Properties
from components.errors import DataError

SCHEMA_FILE = Path(__file__).with_name('schema.pbtxt')
_DIGEST_KEY = 'schema_digest'


def compute_schema_digest() -> str:
    """Computes the SHA-256 of the curated schema's text: lower-case hex."""
    return hashlib.sha256(SCHEMA_FILE.read_bytes()).hexdigest()


class _Spec(types.ComponentSpec):
    PARAMETERS: ClassVar[dict[str, Any]] = {_DIGEST_KEY: ExecutionParameter(type=str)}
    INPUTS: ClassVar[dict[str, Any]] = {}
    OUTPUTS: ClassVar[dict[str, Any]] = standard_component_specs.ImportSchemaGenSpec.OUTPUTS


class Executor(executor.Executor):
    """Copies the curated schema to the output artifact."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """See the stock executor.

        Raises:
          DataError: the schema on this machine is not the one that the pipeline was compiled with.
        """
        if exec_properties[_DIGEST_KEY] != compute_schema_digest():
            raise DataError(f'{SCHEMA_FILE} is not the schema that this pipeline was compiled with; compile it again.')
        super().Do(input_dict, output_dict, {standard_component_specs.SCHEMA_FILE_KEY: str(SCHEMA_FILE)})


class CuratedSchemaGen(component.ImportSchemaGen):
    """Provides the curated schema.

    Component `outputs` contains:
      - `schema`: Channel of type `standard_artifacts.Schema`.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self) -> None:
        spec = _Spec(schema_digest=compute_schema_digest(), schema=types.Channel(type=standard_artifacts.Schema))
        base_component.BaseComponent.__init__(self, spec=spec)  # and not ImportSchemaGen's, which takes a path
