"""Writes a StepConfig into a package: as fields of the PipelineSpec, and as an entry of the kubernetes platform spec.

Only fields that Kubeflow Pipelines reads since 2.5 are used (api/v2alpha1/pipeline_spec.proto and
kubernetes_platform/proto/kubernetes_executor_config.proto). The GPU is also written in the fields of servers before
2.4, because these do not refuse the newer ones: they ignore them, and run the step without a GPU.
Neither document has a field for a service account, which belongs to a run and not to a step.
"""

from typing import Any

from pipeline.kubeflow_config import StepConfig

GPU_VARIABLE = 'PROMISED_GPUS'
"""Environment variable of a step: the number of GPUs that the package asks for; `kubeflow.entrypoint` checks it."""


def describe_container(step: StepConfig) -> dict[str, Any]:
    """Returns the container's `resources` and `env`, without settings that are not set."""
    count = str(step.gpu)
    accelerator = {'resourceType': step.gpu_type, 'resourceCount': count, 'type': step.gpu_type, 'count': count}
    resources = {
        'resourceCpuRequest': step.cpu,
        'resourceMemoryRequest': step.memory,
        'resourceMemoryLimit': step.memory,
        'accelerator': accelerator if step.gpu else None,
    }
    env = [dict(zip(('name', 'value'), text.split('=', 1), strict=True)) for text in step.env or ()]
    if step.gpu:
        env.append({'name': GPU_VARIABLE, 'value': count})
    return _drop_unset({'resources': _drop_unset(resources), 'env': env})


def describe_task(step: StepConfig) -> dict[str, Any]:
    """Returns the task's `cachingOptions`, and its `retryPolicy` if it is retried."""
    retry = {
        'maxRetryCount': step.retries,
        'backoffDuration': f'{step.backoff_s or 0}s',
        'backoffFactor': step.backoff_factor,
        'backoffMaxDuration': f'{step.backoff_max_s}s' if step.backoff_max_s else None,
    }
    options = {'cachingOptions': {'enableCache': bool(step.cache)}}
    return {**options, 'retryPolicy': _drop_unset(retry)} if step.retries else options


def describe_platform(step: StepConfig) -> dict[str, Any]:
    """Returns the step's KubernetesExecutorConfig as JSON; empty if none of its settings are set."""
    return _drop_unset(
        {
            'nodeSelector': _drop_unset({'labels': dict(text.split('=', 1) for text in step.node_selector or ())}),
            'tolerations': [_describe_toleration(text) for text in step.tolerations or ()],
            'secretAsEnv': [_describe_secret(text) for text in step.secret_env or ()],
            'pvcMount': [_describe_mount(text) for text in step.pvcs or ()],
            'activeDeadlineSeconds': str(step.timeout_s)
            if step.timeout_s
            else None,  # protobuf's JSON has an int64 as text
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
