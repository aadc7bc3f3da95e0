"""Report: the last component of a run, which writes the report of a pushed model and of a refused one.

It decides nothing. A report that cannot be made does not fail a run whose model is pushed already: the page then says
why there is none.
"""

import dataclasses
import html
import logging
import uuid
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import json_utils

from components.artifacts import Artifacts, Properties
from components.baseline import Baseline
from components.data_gate.report import DataReport
from components.errors import to_one_line
from components.identity_driver import IDENTITY_KEY, IdentityDriver
from components.staging import write_text
from pipeline.report.folders import Folders, find_folders
from pipeline.report.report import make_report

REPORT_FILE = 'report.html'
ERROR_PROPERTY = 'error'  # of the artifact: why there is no report; missing if there is one
_OUTPUT_KEY, _ROOT_KEY, _CONFIG_KEY = 'report', 'root', 'custom_config'
_INPUTS = {
    'examples': (standard_artifacts.Examples, 'ImportExampleGen.examples'),
    'statistics': (standard_artifacts.ExampleStatistics, 'StatisticsGen.statistics'),
    'schema': (standard_artifacts.Schema, 'CuratedSchemaGen.schema'),
    'data_report': (DataReport, 'DataCheck.report'),
    'model': (standard_artifacts.Model, 'Trainer.model'),
    'model_run': (standard_artifacts.ModelRun, 'Trainer.model_run'),
    'baseline': (Baseline, 'BaselineFinder.baseline'),
    'evaluation': (standard_artifacts.ModelEvaluation, 'Evaluator.evaluation'),
    'serving_blessing': (standard_artifacts.InfraBlessing, 'ServingCheck.blessing'),
    'pushed_model': (standard_artifacts.PushedModel, 'Pusher.pushed_model'),
    'tuner_results': (standard_artifacts.TunerResults, 'Tuner.tuner_results'),
}
"""By input: its type, and the output that it comes from, as `Folders.artifacts` has it."""
_OPTIONAL = ('tuner_results',)


class RunReport(types.Artifact):
    """A folder with REPORT_FILE and the label suspects beside it."""

    TYPE_NAME = 'pipeline.RunReport'  # TFX compiles only names of two parts for Kubeflow


class ReportDriver(IdentityDriver):
    """Makes every run write its own report: it names the run, and what was reused."""

    def identify(self, input_dict: Artifacts, exec_properties: Properties) -> str:
        """Returns a text that no earlier run has had."""
        return uuid.uuid4().hex


class Executor(base_executor.BaseExecutor):
    """Writes the report."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Writes REPORT_FILE, or a page that says why there is no report.

        Args:
          input_dict: an artifact by each key of the component's inputs; 'tuner_results' only if there was a Tuner.
          output_dict: 'report'.
          exec_properties: 'root', the folder of results of a run on this machine, else ''; 'custom_config' with 'data'
            and 'settings', as the Pusher's.
        """
        report = artifact_utils.get_single_instance(output_dict[_OUTPUT_KEY])
        file = Path(report.uri, REPORT_FILE)
        try:
            make_report(self._find_folders(input_dict, exec_properties), file)
        except Exception as error:
            logging.exception('The report could not be made.')
            reason = to_one_line(error)
            report.set_string_custom_property(ERROR_PROPERTY, reason)
            text = f'The report could not be made: {html.escape(reason)}'
            write_text(file, f'<!DOCTYPE html><html lang="en"><title>No report</title><p>{text}</p></html>')

    def _find_folders(self, input_dict: Artifacts, exec_properties: Properties) -> Folders:
        """Finds what the run wrote: in its ML Metadata, or, on Kubeflow, where there is none to ask, in the inputs."""
        if exec_properties[_ROOT_KEY]:
            assert self._context is not None
            folders = find_folders(Path(exec_properties[_ROOT_KEY]), self._context.pipeline_run_id)
            others = tuple(state for state in folders.components if state.name != Report.__name__)
            return dataclasses.replace(folders, components=others)
        config = json_utils.loads(exec_properties[_CONFIG_KEY])
        pushed = artifact_utils.get_single_instance(input_dict['pushed_model'])
        return Folders(
            artifacts={
                name: Path(artifact_utils.get_single_uri(input_dict[key]))
                for key, (_, name) in _INPUTS.items()
                if input_dict.get(key)
            },
            pipeline=config['settings']['name'],
            data=config['data'],
            settings=config['settings'],
            version=pushed.get_string_custom_property('pushed_version'),
        )


class _Spec(types.ComponentSpec):
    PARAMETERS: ClassVar = {key: ExecutionParameter(type=str) for key in (_ROOT_KEY, _CONFIG_KEY, IDENTITY_KEY)}
    INPUTS: ClassVar = {
        key: ChannelParameter(type=kind, optional=key in _OPTIONAL) for key, (kind, _) in _INPUTS.items()
    }
    OUTPUTS: ClassVar = {_OUTPUT_KEY: ChannelParameter(type=RunReport)}


class Report(base_component.BaseComponent):
    """Writes the report of a run whose model was pushed or refused.

    Args:
      channels: the outputs of other components by the keys of the inputs: 'examples', 'statistics', 'schema',
        'data_report' (DataCheck's), 'model', 'model_run', 'baseline', 'evaluation', 'serving_blessing' (ServingCheck's)
        and 'pushed_model'; and the Tuner's 'tuner_results' if there is one.
      root: the folder of results of a run on this machine, whose ML Metadata knows how long each component took; '' for
        a run elsewhere.
      data: folder or URI of the TFRecords.
      settings: what the run is made with, as the Pusher gets it.

    Component `outputs` contains:
      - `report`: Channel of type `RunReport`.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = ReportDriver

    def __init__(self, channels: dict[str, types.BaseChannel], *, root: str, data: str, settings: dict[str, Any]):
        super().__init__(
            _Spec(
                **channels,
                root=root,
                custom_config=json_utils.dumps({'data': data, 'settings': settings}),
                identity='',
                report=types.Channel(type=RunReport),
            )
        )
