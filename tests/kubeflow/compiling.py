"""A config and a target that the tests of packages compile, and how they read the package."""

import yaml

from kubeflow.target import Target
from pipeline.config import PRESETS
from pipeline.kubeflow_config import STEPS
from pipeline.overrides import apply_overrides

TARGET = Target(image='registry.example:5000/cifar10:1.0', gpu_image=None, pipeline_root='minio://mlpipeline/v2')
VOLUME = 'models:/mnt/models'
COMPILED = tuple(step for step in STEPS if step != 'Tuner')  # by make_config, whose warm start excludes the Tuner


def make_config(*assignments: str):
    places = ['data=gs://bucket/data', 'serving=/mnt/models', 'bulk_input=gs://bucket/new']
    places += [f'kubeflow.default.pvcs={VOLUME}', 'trainer.warm_start=serving']
    return apply_overrides(PRESETS['sample']('/unused'), [*places, *assignments])


def parse(text: str) -> tuple[dict, dict]:
    spec, platform = yaml.safe_load_all(text)
    return spec, platform['platforms']['kubernetes']['deploymentSpec']['executors']


def get_container(spec: dict, name: str) -> dict:
    return spec['deploymentSpec']['executors'][f'{name}_executor']['container']
