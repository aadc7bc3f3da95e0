"""IdentityDriver: adds the state of a folder outside the pipeline, such as the serving folder, to TFX's cache key.

TFX reuses a component's result when its inputs and execution properties are the same. A component that reads such a
folder would be skipped although the folder has changed.
"""

import abc

from tfx.dsl.components.base import base_driver
from tfx.orchestration import metadata
from tfx.orchestration.portable import base_driver as portable_driver, data_types
from tfx.proto.orchestration import driver_output_pb2

from components.artifacts import Artifacts, Properties

IDENTITY_KEY = 'identity'


class IdentityDriver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Sets the execution property IDENTITY_KEY before TFX looks into its cache.

    It works only in local runs, because Kubeflow Pipelines does not run custom drivers.
    """

    def __init__(self, metadata_handle: metadata.Metadata):
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_driver.BaseDriver.__init__(self, metadata_handle)

    @abc.abstractmethod
    def identify(self, input_dict: Artifacts, exec_properties: Properties) -> str:
        """Returns a text that changes whenever the component must run again."""

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """See the base class."""
        identity = self.identify(execution_info.input_dict, execution_info.exec_properties)
        output = driver_output_pb2.DriverOutput()
        output.exec_properties[IDENTITY_KEY].string_value = identity
        return output
