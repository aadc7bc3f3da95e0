"""KubeflowConfig: what each step of a Kubeflow package is given; kubeflow/steps.py writes it down."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

STEPS = (
    'ImportExampleGen',
    'CuratedSchemaGen',
    'StatisticsGen',
    'ExampleValidator',
    'DataCheck',
    'DataGate',
    'Transform',
    'Trainer',
    'BaselineFinder',
    'Evaluator',
    'ServingCheck',
    'Pusher',
)
"""The components of `pipeline.pipeline.create_pipeline`, known here without importing TFX."""
LOOKING_STEPS = ('DataCheck', 'BaselineFinder')
"""What these find in the serving folder is not in Kubeflow's cache key, which has parameters and artifacts alone."""

_PATTERNS = {
    'cpu': (r'\d+(\.\d+)?m?', 'cores, such as 2 or 500m'),
    'memory': (r'\d+(\.\d+)?(k|[KMGTPE]i|[MGTPE])?', 'a Kubernetes quantity, such as 4Gi'),
    'gpu_type': (r'[a-z0-9.-]+/[A-Za-z0-9._-]+', "a resource's name, such as nvidia.com/gpu"),
    'node_selector': (r'[^=]+=[^=]*', 'LABEL=VALUE'),
    'tolerations': (r'[^=:]+(=[^=:]*)?(:(NoSchedule|PreferNoSchedule|NoExecute))?', 'KEY[=VALUE][:EFFECT]'),
    'env': (r'[A-Za-z_][A-Za-z0-9_]*=.*', 'NAME=VALUE'),
    'secret_env': (r'[A-Za-z_][A-Za-z0-9_]*=[a-z0-9.-]+:[A-Za-z0-9._-]+', 'NAME=SECRET:KEY'),
    'pvcs': (r'[a-z0-9.-]+:/[^:]*', 'CLAIM:/PATH'),
}
_LEAST = {'gpu': 0, 'retries': 0, 'backoff_s': 1, 'backoff_factor': 1, 'backoff_max_s': 1, 'timeout_s': 0}


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """What a step is given; None is what `kubeflow.default` says."""

    cpu: str | None = None
    """Cores that the node must have free for it, such as 2 or 500m; it may use more where there are more."""
    memory: str | None = None
    """Memory that the node must have free for it, such as 4Gi; a step that takes more is killed."""
    gpu: int | None = None
    """GPUs; a step with one runs in the GPU image."""
    gpu_type: str | None = None
    """The GPU's resource name in Kubernetes."""
    node_selector: tuple[str, ...] | None = None
    """Labels that a node must have, each LABEL=VALUE."""
    tolerations: tuple[str, ...] | None = None
    """Taints of nodes that it may run on all the same, each KEY[=VALUE][:EFFECT], as kubectl writes them."""
    env: tuple[str, ...] | None = None
    """Environment variables, each NAME=VALUE."""
    secret_env: tuple[str, ...] | None = None
    """Environment variables from secrets, each NAME=SECRET:KEY."""
    pvcs: tuple[str, ...] | None = None
    """Volumes to mount, each CLAIM:/PATH."""
    retries: int | None = None
    """Times that it is started again after it failed."""
    backoff_s: int | None = None
    """Seconds before the first of these."""
    backoff_factor: int | None = None
    """By which the wait grows from one to the next."""
    backoff_max_s: int | None = None
    """Seconds from the first start after which it is not started again: more than it takes to run."""
    cache: bool | None = None
    """Whether Kubeflow may reuse an earlier run's result where parameters, input artifacts and image are the same."""
    timeout_s: int | None = None
    """Seconds after which it is killed; 0 for no limit."""

    def __post_init__(self):
        for name, (pattern, wanted) in _PATTERNS.items():
            value = getattr(self, name)
            for text in (value,) if isinstance(value, str) else value or ():
                if not re.fullmatch(pattern, text):
                    raise ValueError(f'{name} takes {wanted}. Received: {text!r}')
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f'{name} must be at least {least}. Received: {value}')

    def fill(self, default: 'StepConfig') -> 'StepConfig':
        """A copy with what is None taken from `default`."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return StepConfig(
            **{name: getattr(default, name) if value is None else value for name, value in values.items()}
        )


def _make_default() -> StepConfig:
    # Estimates for 60,000 images; a rehearsal of the package says what each step takes.
    return StepConfig(
        cpu='1',
        memory='4Gi',
        gpu=0,
        gpu_type='nvidia.com/gpu',
        node_selector=(),
        tolerations=(),
        env=(),
        secret_env=(),
        pvcs=(),
        retries=2,
        backoff_s=60,
        backoff_factor=2,
        backoff_max_s=86_400,
        cache=True,
        timeout_s=0,
    )


def _make_steps() -> dict[str, StepConfig]:
    return {
        **{name: StepConfig() for name in STEPS},
        # Kubeflow does not see that the files behind the same URI have changed.
        'ImportExampleGen': StepConfig(cache=False),
        **{name: StepConfig(cache=False) for name in LOOKING_STEPS},
        'DataGate': StepConfig(retries=0),  # bad data is as bad the next time
        'Trainer': StepConfig(cpu='4', memory='8Gi'),
    }


@dataclass(frozen=True, kw_only=True)
class KubeflowConfig:
    """What the steps of a package compiled for Kubeflow Pipelines are given; a run on this machine does not read it."""

    default: StepConfig = field(default_factory=_make_default)
    """For every step that does not say otherwise."""
    steps: Mapping[str, StepConfig] = field(default_factory=_make_steps)
    """By component, such as Trainer."""

    def __post_init__(self):
        for name in self.steps:
            if name not in STEPS:
                raise ValueError(f'kubeflow.steps are {", ".join(STEPS)}. Received: {name}')
        for name in LOOKING_STEPS:
            if self.get_step(name).cache:
                raise ValueError(
                    f'kubeflow.steps.{name}.cache must be false: the step looks at the model now serving, which '
                    "Kubeflow's cache knows nothing of."
                )

    def get_step(self, name: str) -> StepConfig:
        """What the step gets, the default filled in."""
        return self.steps.get(name, StepConfig()).fill(self.default)
