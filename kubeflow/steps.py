"""What a StepConfig becomes: fields of the PipelineSpec, and the kubernetes platform spec.

The fields are those that Kubeflow Pipelines reads since 2.5 (api/v2alpha1/pipeline_spec.proto and
kubernetes_platform/proto/kubernetes_executor_config.proto): its own SDK writes those of older servers beside them. A
service account is in neither: it belongs to a run, not to a step.
"""

from typing import Any

from pipeline.kubeflow_config import StepConfig


def describe_container(step: StepConfig) -> dict[str, Any]:
    """The container's `resources` and `env`, without what is not set."""
    resources = {
        'resourceCpuRequest': step.cpu,
        'resourceMemoryRequest': step.memory,
        'resourceMemoryLimit': step.memory,
        'accelerator': {'resourceType': step.gpu_type, 'resourceCount': str(step.gpu)} if step.gpu else None,
    }
    env = [dict(zip(('name', 'value'), text.split('=', 1), strict=True)) for text in step.env or ()]
    return _drop_unset({'resources': _drop_unset(resources), 'env': env})


def describe_task(step: StepConfig) -> dict[str, Any]:
    """The task's `cachingOptions` and `retryPolicy`."""
    retry = {
        'maxRetryCount': step.retries,
        'backoffDuration': f'{step.backoff_s or 0}s',
        'backoffFactor': step.backoff_factor,
        'backoffMaxDuration': f'{step.backoff_max_s}s' if step.backoff_max_s else None,
    }
    options = {'cachingOptions': {'enableCache': bool(step.cache)}}
    return {**options, 'retryPolicy': _drop_unset(retry)} if step.retries else options


def describe_platform(step: StepConfig) -> dict[str, Any]:
    """The step's KubernetesExecutorConfig; empty where the step asks for nothing of it."""
    return _drop_unset(
        {
            'nodeSelector': _drop_unset({'labels': dict(text.split('=', 1) for text in step.node_selector or ())}),
            'tolerations': [_describe_toleration(text) for text in step.tolerations or ()],
            'secretAsEnv': [_describe_secret(text) for text in step.secret_env or ()],
            'pvcMount': [_describe_mount(text) for text in step.pvcs or ()],
            'activeDeadlineSeconds': str(step.timeout_s) if step.timeout_s else None,  # as JSON has int64
        }
    )


def _describe_toleration(text: str) -> dict[str, str]:
    taint, _, effect = text.partition(':')
    key, equals, value = taint.partition('=')
    operator = {'operator': 'Equal', 'value': value} if equals else {'operator': 'Exists'}
    return _drop_unset({'key': key, **operator, 'effect': effect})


def _describe_secret(text: str) -> dict[str, Any]:
    name, _, reference = text.partition('=')
    secret, _, key = reference.partition(':')
    return {'secretNameParameter': _make_constant(secret), 'keyToEnv': [{'secretKey': key, 'envVar': name}]}


def _describe_mount(text: str) -> dict[str, Any]:
    claim, _, path = text.partition(':')
    return {'pvcNameParameter': _make_constant(claim), 'mountPath': path.rstrip('/')}


def _make_constant(text: str) -> dict[str, Any]:
    return {'runtimeValue': {'constant': text}}


def _drop_unset(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, '', [], {})}
