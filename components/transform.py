"""Transform: TFX's own, which also tells the preprocessing_fn the data contract that the schema holds.

TFX gives a preprocessing_fn the raw features and `custom_config`, which is known before the run. The contract is known
only when the data has been read.
"""

from pathlib import Path

from tfx import components
from tfx.components.transform import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import json_utils

from components.artifacts import Artifacts, Properties
from components.contract_schema import SCHEMA_NAME, load_contract

CONTRACT_KEY = 'contract'  # in the custom_config that the preprocessing_fn gets

_CUSTOM_CONFIG_KEY = standard_component_specs.CUSTOM_CONFIG_KEY


class Executor(executor.Executor):
    """Adds the contract to `custom_config`."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """See the stock executor."""
        schema = artifact_utils.get_single_uri(input_dict[standard_component_specs.SCHEMA_KEY])
        contract = load_contract(Path(schema, SCHEMA_NAME))
        config = {**json_utils.loads(exec_properties[_CUSTOM_CONFIG_KEY]), CONTRACT_KEY: contract.to_dict()}
        super().Do(input_dict, output_dict, {**exec_properties, _CUSTOM_CONFIG_KEY: json_utils.dumps(config)})


class Transform(components.Transform):
    """TFX's Transform with the executor of this module."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
