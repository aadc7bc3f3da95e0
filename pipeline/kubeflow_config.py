"""KubeflowConfig: the resources and rules of each step of a Kubeflow package; kubeflow/steps.py writes them down."""

import re
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from components.settings import SETTINGS, Settings

Step = Literal[
    'ImportExampleGen',
    'CuratedSchemaGen',
    'StatisticsGen',
    'ExampleValidator',
    'DataCheck',
    'DataGate',
    'Transform',
    'BaseModelFinder',
    'Tuner',
    'Trainer',
    'BaselineFinder',
    'Evaluator',
    'ServingCheck',
    'Pusher',
    'Report',
    'BulkInferrer',
]
STEPS: tuple[Step, ...] = get_args(Step)
"""The components of `pipeline.pipeline.create_pipeline`, known here without importing TFX. BulkInferrer is among them
only if `bulk_input` is set, BaseModelFinder only if `trainer.warm_start` is, and the Tuner only if `tuner.trials`
is."""
TRAINING_STEPS: tuple[Step, ...] = ('Tuner', 'Trainer')
LOOKING_STEPS: tuple[Step, ...] = ('DataCheck', 'BaseModelFinder', 'BaselineFinder', 'BulkInferrer')
"""Steps that look at the serving folder or at another folder outside. Kubeflow's cache key has only parameters and
input artifacts, so it does not change when the folder does."""


def _match(pattern: str, wanted: str) -> AfterValidator:
    """Makes a check of a text against a regular expression; `wanted` says in words what the text must be."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f'must be {wanted}')
        return text

    return AfterValidator(check)


_Cpu = Annotated[str, _match(r'\d+(\.\d+)?m?', 'cores, such as 2 or 500m')]
_Memory = Annotated[str, _match(r'\d+(\.\d+)?(k|[KMGTPE]i|[MGTPE])?', 'a Kubernetes quantity, such as 4Gi')]
_GpuType = Annotated[str, _match(r'[a-z0-9.-]+/[A-Za-z0-9._-]+', "a resource's name, such as nvidia.com/gpu")]
_NodeLabel = Annotated[str, _match(r'[^=]+=[^=]*', 'LABEL=VALUE')]
_Toleration = Annotated[
    str, _match(r'[^=:]+(=[^=:]*)?(:(NoSchedule|PreferNoSchedule|NoExecute))?', 'KEY[=VALUE][:EFFECT]')
]
_Variable = Annotated[str, _match(r'[A-Za-z_][A-Za-z0-9_]*=.*', 'NAME=VALUE')]
_SecretVariable = Annotated[str, _match(r'[A-Za-z_][A-Za-z0-9_]*=[a-z0-9.-]+:[A-Za-z0-9._-]+', 'NAME=SECRET:KEY')]
_Volume = Annotated[str, _match(r'[a-z0-9.-]+:/[^:]*', 'CLAIM:/PATH')]
_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class StepConfig:
    """What one step gets; None takes the value of `kubeflow.default`."""

    cpu: _Cpu | None = None
    """Cores that the node must have free for the step, such as 2 or 500m. The step may use more than these."""
    memory: _Memory | None = None
    """Memory that the node must have free for the step, such as 4Gi. A step that takes more is killed."""
    gpu: _Count | None = None
    """Number of GPUs; a step with a GPU runs in the GPU image."""
    gpu_type: _GpuType | None = None
    """The GPU's resource name in Kubernetes."""
    node_selector: tuple[_NodeLabel, ...] | None = None
    """Labels that a node must have, each LABEL=VALUE."""
    tolerations: tuple[_Toleration, ...] | None = None
    """Node taints that the step tolerates, each `KEY[=VALUE][:EFFECT]`, as kubectl writes them."""
    env: tuple[_Variable, ...] | None = None
    """Environment variables, each NAME=VALUE."""
    secret_env: tuple[_SecretVariable, ...] | None = None
    """Environment variables from secrets, each NAME=SECRET:KEY."""
    pvcs: tuple[_Volume, ...] | None = None
    """Volumes to mount, each CLAIM:/PATH."""
    retries: _Count | None = None
    """How often a step that failed is started again."""
    backoff_s: _Positive | None = None
    """Seconds to wait before the first retry."""
    backoff_factor: _Positive | None = None
    """Factor by which the wait grows from one retry to the next."""
    backoff_max_s: _Positive | None = None
    """Seconds after the step's first start from which it is not retried any more; choose more than the step takes."""
    cache: bool | None = None
    """Whether Kubeflow may reuse an earlier run's result where parameters, input artifacts and image are the same."""
    timeout_s: _Count | None = None
    """Seconds after which the step is killed; 0 for no limit."""

    def fill(self, default: 'StepConfig') -> 'StepConfig':
        """Returns a copy in which every None is replaced by the value of `default`."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return StepConfig(
            **{name: getattr(default, name) if value is None else value for name, value in values.items()}
        )


def _make_default() -> StepConfig:
    # Estimates for 60,000 images; a rehearsal of the package shows what each step really takes.
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


def _make_steps() -> dict[Step, StepConfig]:
    return {
        **{name: StepConfig() for name in STEPS},
        # Kubeflow does not see that the files behind the same URI have changed.
        'ImportExampleGen': StepConfig(cache=False),
        **{name: StepConfig(cache=False) for name in LOOKING_STEPS},
        'DataGate': StepConfig(retries=0),  # bad data does not get better by a retry
        **{name: StepConfig(cpu='4', memory='8Gi') for name in TRAINING_STEPS},
    }


@dataclass(frozen=True, kw_only=True)
class KubeflowConfig(Settings):
    """What the steps of a package compiled for Kubeflow Pipelines get; a run on this machine does not read it."""

    SECTION: ClassVar[str] = 'kubeflow'

    default: StepConfig = field(default_factory=_make_default)
    """Settings of the steps that do not have their own."""
    steps: Mapping[Step, StepConfig] = field(default_factory=_make_steps)
    """Settings by component, such as Trainer."""

    def __post_init__(self) -> None:
        for name in LOOKING_STEPS:
            if self.get_step(name).cache:
                raise ValueError(
                    f'kubeflow.steps.{name}.cache must be false: the step looks at a folder that can change, such as '
                    "the serving folder, which Kubeflow's cache knows nothing of."
                )

    def get_step(self, name: Step) -> StepConfig:
        """Returns the step's settings, filled in from `default`."""
        return self.steps.get(name, StepConfig()).fill(self.default)
