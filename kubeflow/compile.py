"""create_package: compiles the pipeline into one YAML file for open-source Kubeflow Pipelines, 2.5 and newer.

TFX compiles the graph. This module adds what TFX leaves out for this server, and removes what the server ignores.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner
from tfx.utils import name_utils

from components.errors import UsageError
from kubeflow.exit_handler import EXECUTOR, TASK, add_exit_handler
from kubeflow.lint.linter import lint_package
from kubeflow.package import write_file
from kubeflow.pages import add_pages
from kubeflow.parameters import add_parameters
from kubeflow.steps import describe_container, describe_platform, describe_task
from kubeflow.target import Target
from pipeline.config import PipelineConfig
from pipeline.kubeflow_config import STEPS, Step
from pipeline.pipeline import create_pipeline

COMMAND = ('python', '-m', 'kubeflow.entrypoint')
"""The command of every step's container; TFX's own arguments follow it."""
_INPUTS_OPTION = '--json_serialized_inputs_spec_args'


def _compile_graph(pipeline: tfx_pipeline.Pipeline, image: str) -> dict[str, Any]:
    config = kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=list(COMMAND), use_pipeline_spec_2_1=True
    )
    job = kubeflow_v2_dag_runner.KubeflowV2DagRunner(config).run(pipeline, write_out=False)
    spec: dict[str, Any] = job['pipelineSpec']
    return spec


def _name_artifact_types(spec: dict[str, Any], pipeline: tfx_pipeline.Pipeline) -> None:
    """Puts the class path of our own artifact types into their schemas: TFX imports the class that the title names."""
    types = {channel.type for component in pipeline.components for channel in component.outputs.values()}
    paths = {kind.TYPE_NAME: name_utils.get_full_name(kind) for kind in types if kind.TYPE_NAME.count('.') == 1}
    for component in spec['components'].values():
        for side in ('inputDefinitions', 'outputDefinitions'):
            for artifact in component.get(side, {}).get('artifacts', {}).values():
                schema = yaml.safe_load(artifact['artifactType']['instanceSchema'])
                schema['title'] = paths.get(schema['title'], schema['title'])
                artifact['artifactType']['instanceSchema'] = yaml.safe_dump(schema, sort_keys=False)


def _equip_step(spec: dict[str, Any], name: Step, config: PipelineConfig, target: Target) -> None:
    """Gives a step its image, resources, environment, cache and retries, and the types of its inputs."""
    step = config.kubeflow.get_step(name)
    component = spec['components'][name]
    container = spec['deploymentSpec']['executors'][component['executorLabel']]['container']
    container.pop('lifecycle', None)  # TFX's driver for spans and versions, which the server never starts
    container['image'] = target.get_image(step.gpu)
    container |= describe_container(step)
    # The server passes input artifacts without their types; the container's command takes the types from here.
    arguments = container['args']
    arguments[arguments.index(_INPUTS_OPTION) + 1] = json.dumps(component['inputDefinitions'], sort_keys=True)
    task = spec['root']['dag']['tasks'][name]
    task |= describe_task(step)


def _equip_exit_handler(spec: dict[str, Any], config: PipelineConfig) -> dict[str, Any]:
    """Gives the exit task the default settings of a step, without GPU and cache; returns its platform entry."""
    step = dataclasses.replace(config.kubeflow.default, gpu=0, cache=False)
    spec['deploymentSpec']['executors'][EXECUTOR]['container'] |= describe_container(step)
    spec['root']['dag']['tasks'][TASK] |= describe_task(step)
    return describe_platform(step)


def create_package(config: PipelineConfig, target: Target) -> str:
    """Compiles the pipeline.

    Args:
      config: of the pipeline and its steps.
      target: the images and places to compile for.

    Returns:
      YAML: the PipelineSpec, then the kubernetes platform spec. Equal arguments give equal text.

    Raises:
      UsageError: config and target do not fit each other.
    """
    target.check(config)
    pipeline = create_pipeline(config, target.pipeline_root)
    spec = _compile_graph(pipeline, target.image)
    spec['defaultPipelineRoot'] = target.pipeline_root
    _name_artifact_types(spec, pipeline)
    add_parameters(spec, config)
    executors = {}
    for name in (step for step in STEPS if step in spec['components']):
        _equip_step(spec, name, config, target)
        executors[spec['components'][name]['executorLabel']] = describe_platform(config.kubeflow.get_step(name))
    if target.webhook:
        spec = add_exit_handler(spec, target.image, target.webhook)
        executors[EXECUTOR] = _equip_exit_handler(spec, config)
    add_pages(spec)
    platform = {'platforms': {'kubernetes': {'deploymentSpec': {'executors': executors}}}}
    return yaml.safe_dump_all([spec, platform], sort_keys=True, width=120)


def write_package(config: PipelineConfig, target: Target, out: Path) -> str:
    """Compiles the pipeline and writes the package, whole or not at all.

    Args:
      config: see `create_package`.
      target: see `create_package`.
      out: the YAML file to write.

    Returns:
      What was written, for the user; on a second line a warning, if there is one.

    Raises:
      UsageError: config and target do not fit each other, a server would refuse the package, or the file cannot be
        written.
    """
    text = create_package(config, target)
    problems = [problem for problem in lint_package(text) if problem.severity == 'error']
    if problems:
        lines = [f'\n  {problem.where}: {problem.what} {problem.mend}' for problem in problems]
        raise UsageError(f'A Kubeflow Pipelines server would refuse this package:{"".join(lines)}')
    write_file(out, text)
    return f'{config.name} written to {out}{_warn_of_checkpoints(config)}'


def _warn_of_checkpoints(config: PipelineConfig) -> str:
    """Returns a line that warns of a Trainer that is retried without its checkpoints; '' if there is no such Trainer.

    The launcher uploads what a step wrote only after a success, so without a place of their own the checkpoints of a
    failed attempt are lost with its pod.
    """
    retries = config.kubeflow.get_step('Trainer').retries
    if not retries or config.trainer.checkpoint_dir:
        return ''
    return (
        f'\nwarning: kubeflow.steps.Trainer.retries={retries} starts a Trainer that failed at epoch 0 again, because '
        'its checkpoints are lost with its pod; name a folder on a volume, s3:// or gs:// with '
        '--set trainer.checkpoint_dir=FOLDER'
    )
