"""`trainjob`: writes a Kubernetes manifest that runs a package's Trainer step in several pods that train one model.

A step of Kubeflow Pipelines is one pod. Here Kubeflow's training operator starts the pods instead: Trainer v2 from a
TrainJob, or its predecessor from a TFJob. Each pod runs the container command of the step as the package has it, with
an ExecutorInput that names folders on a shared volume, and with TF_CONFIG, which tells TensorFlow the addresses of all
workers. The operator of a TFJob sets TF_CONFIG. Trainer v2 knows nothing of TensorFlow, so its manifest says it.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import yaml

from components import features
from components.errors import UsageError
from kubeflow.package import Document, Package, parse_parameters, read_package, write_file
from kubeflow.pages import PAGES

Kind = Literal['TrainJob', 'TFJob']
STEP = 'Trainer'
PORT = 2222
"""Where the workers listen, as the operator of TFJobs has it (TFJobDefaultPort in kubeflow/trainer at release-1.9)."""
_OUTPUT_FILE = '/tmp/trainjob/output_metadata.json'  # in each pod; TFX writes it, and nobody reads it
_INPUT_PLACEHOLDER = '{{$}}'
_INDEX_ANNOTATION = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_EXAMPLES_METADATA = {
    'split_names': json.dumps(list(features.SPLITS)),
    'file_format': 'tfrecords_gzip',
    'payload_format': 'FORMAT_TF_EXAMPLE',
}
"""What ImportExampleGen records of its output in ML Metadata, and the Trainer reads from there."""
_MAX_NAME = 50  # characters; a pod's host name may have 63, and the operators append the worker's role and number


class TrainJob(NamedTuple):
    """What to write.

    package: the file that `compile` wrote.
    folder: on a volume that the Trainer's step mounts; it has the folders `examples`, `transform_graph` and `schema`,
      and `hyperparameters` for a package with a Tuner, and the first worker writes `model/1` and `model_run/1` into it.
    workers: number of pods, at least 2.
    kind: TrainJob for Kubeflow Trainer v2, TFJob for the training operator v1.
    assignments: KEY=VALUE texts for the package's parameters.
    """

    package: Path
    folder: str
    workers: int
    kind: Kind
    assignments: list[str]


def write_job(job: TrainJob, out: Path) -> str:
    """Writes the manifest, whole or not at all.

    Args:
      job: what to write.
      out: the YAML file.

    Returns:
      What was written, for the user.

    Raises:
      UsageError: the package has no Trainer step that several workers can run, an option or a parameter is wrong, or
        the file cannot be written.
    """
    write_file(out, yaml.safe_dump_all(create_job(job), sort_keys=False, width=120))
    return f'{job.kind} for {job.workers} workers written to {out}'


def create_job(job: TrainJob) -> list[Document]:
    """Makes the manifest.

    Args:
      job: see `write_job`.

    Returns:
      For Trainer v2 a TrainingRuntime and the TrainJob that uses it; else a TFJob.

    Raises:
      UsageError: see `write_job`.
    """
    if job.workers < 2:
        raise UsageError(f'--workers takes a number of at least 2. Received: {job.workers}')
    package = read_package(job.package)
    parameters = parse_parameters(package, job.assignments)
    task = next((dag['tasks'][STEP] for dag in package.list_dags() if STEP in dag['tasks']), None)
    container = package.get_container(STEP) if task and STEP in package.spec['components'] else None
    if task is None or container is None:
        raise UsageError(f'{job.package} has no step {STEP}; `python -m pipeline compile` makes one that has it.')
    platform = package.get_platform(STEP)
    _check_folder(job.folder, [mount['mountPath'] for mount in platform.get('pvcMount', [])])
    try:
        values = _resolve_parameters(package, task, parameters)
        trainer = json.loads(values['custom_config'])['trainer']
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f'The step {STEP} of {job.package} is not the one that `python -m pipeline compile` writes.'
        ) from error
    _check_settings(trainer)
    executor_input = _make_executor_input(package.spec['components'][STEP], values, job.folder)
    pod = _make_pod(container, platform, json.dumps(executor_input, sort_keys=True))
    name = f'train-{package.name}'[:_MAX_NAME].rstrip('-')
    retries = int(task.get('retryPolicy', {}).get('maxRetryCount', 0))
    make = _make_trainjob if job.kind == 'TrainJob' else _make_tfjob
    return make(name, job.workers, retries, pod)


def _check_folder(folder: str, mounts: list[str]) -> None:
    path = PurePosixPath(folder)
    if not path.is_absolute() or '..' in path.parts or not any(path.is_relative_to(mount) for mount in mounts):
        known = ', '.join(mounts) or 'no volume; compile it with --set kubeflow.steps.Trainer.pvcs=CLAIM:/PATH'
        raise UsageError(
            f'--folder takes a folder on a volume that the Trainer mounts, so that all workers see it. Received: '
            f'{folder!r}. The Trainer mounts {known}.'
        )


def _check_settings(trainer: Document) -> None:
    """Refuses settings with which the workers would fail, or would each train a model of their own."""
    if trainer['strategy'] not in ('auto', 'multi_worker'):
        raise UsageError(
            f'The package was compiled with trainer.strategy={trainer["strategy"]}, with which every worker would '
            'train a model of its own. Compile it with --set trainer.strategy=multi_worker.'
        )
    if trainer['weight_average'] != 'none':
        raise UsageError(
            f'The package was compiled with trainer.weight_average={trainer["weight_average"]}, which works on one '
            'machine only. Compile it with --set trainer.weight_average=none.'
        )


def _resolve_parameters(package: Package, task: Document, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of the step's input parameters: constants, and parameters of the pipeline."""
    defaults = {name: entry.get('defaultValue') for name, entry in package.parameters.items()}
    values = {}
    for name, source in task['inputs']['parameters'].items():
        if 'componentInputParameter' in source:
            values[name] = {**defaults, **given}[source['componentInputParameter']]
        else:
            values[name] = source['runtimeValue']['constant']
    return values


def _make_executor_input(component: Document, values: dict[str, Any], folder: str) -> Document:
    """Makes what Kubeflow's launcher would put in place of {{$}}, with folders in place of the store's URIs."""
    inputs = {}
    for number, (key, definition) in enumerate(sorted(component['inputDefinitions']['artifacts'].items()), 1):
        artifact = {'name': str(number), 'uri': f'{folder}/{key}', 'type': definition['artifactType']}
        inputs[key] = {'artifacts': [{**artifact, 'metadata': _EXAMPLES_METADATA if key == 'examples' else {}}]}
    outputs = {
        key: {'artifacts': [{'name': key, 'uri': f'{folder}/{key}/1', 'type': definition['artifactType']}]}
        for key, definition in component['outputDefinitions']['artifacts'].items()
        if key not in PAGES
    }
    return {
        'inputs': {'parameterValues': values, 'artifacts': inputs},
        'outputs': {'artifacts': outputs, 'outputFile': _OUTPUT_FILE},
    }


def _make_pod(container: Document, platform: Document, executor_input: str) -> Document:
    """Makes the pod's `spec` with one container, without a name, from the step's settings in the package."""
    known = {'nodeSelector', 'tolerations', 'secretAsEnv', 'pvcMount', 'activeDeadlineSeconds'}
    unknown = ', '.join(sorted(platform.keys() - known))
    if unknown:
        raise UsageError(f'The Trainer has Kubernetes settings that trainjob cannot write: {unknown}.')
    args = [executor_input if part == _INPUT_PLACEHOLDER else part for part in container['args']]
    mounts = platform.get('pvcMount', [])
    claims = [mount['pvcNameParameter']['runtimeValue']['constant'] for mount in mounts]
    secrets = [
        {
            'name': key['envVar'],
            'valueFrom': {
                'secretKeyRef': {
                    'name': secret['secretNameParameter']['runtimeValue']['constant'],
                    'key': key['secretKey'],
                }
            },
        }
        for secret in platform.get('secretAsEnv', [])
        for key in secret['keyToEnv']
    ]
    filled = {
        'image': container['image'],
        'command': container['command'],
        'args': args,
        'env': [*container.get('env', []), *secrets],
        'resources': _make_resources(container.get('resources', {})),
        'volumeMounts': [
            {'name': f'volume-{number}', 'mountPath': mount['mountPath']} for number, mount in enumerate(mounts)
        ],
    }
    pod = {
        'containers': [filled],
        'volumes': [
            {'name': f'volume-{number}', 'persistentVolumeClaim': {'claimName': claim}}
            for number, claim in enumerate(claims)
        ],
        'nodeSelector': platform.get('nodeSelector', {}).get('labels'),
        'tolerations': platform.get('tolerations'),
        'activeDeadlineSeconds': int(platform.get('activeDeadlineSeconds', 0)),
    }
    return {key: value for key, value in pod.items() if value}


def _make_resources(resources: Document) -> Document:
    requests = {'cpu': resources.get('resourceCpuRequest'), 'memory': resources.get('resourceMemoryRequest')}
    limits = {'memory': resources.get('resourceMemoryLimit')}
    if 'accelerator' in resources:
        limits[resources['accelerator']['resourceType']] = resources['accelerator']['resourceCount']
    return {
        side: {name: value for name, value in amounts.items() if value}
        for side, amounts in (('requests', requests), ('limits', limits))
    }


def _make_trainjob(name: str, workers: int, retries: int, pod: Document) -> list[Document]:
    """Makes a TrainingRuntime and its TrainJob, with what the plugins jobset and plainml of Trainer v2 do with them.

    Trainer v2 makes a JobSet of the same name whose one job, `node`, has an indexed pod for each worker. A pod's host
    name is NAME-node-0-INDEX.NAME (as pkg/runtime/framework/plugins/jax of kubeflow/trainer uses it).
    """
    addresses = [f'{name}-node-0-{index}.{name}:{PORT}' for index in range(workers)]
    cluster = {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': 0}}
    [container] = pod['containers']
    env = [
        *container['env'],
        {'name': 'WORKER_INDEX', 'valueFrom': {'fieldRef': {'fieldPath': _INDEX_ANNOTATION}}},
        # Kubernetes fills in a variable that is defined before.
        {'name': 'TF_CONFIG', 'value': json.dumps(cluster).replace('"index": 0', '"index": $(WORKER_INDEX)')},
    ]
    spec = {**pod, 'restartPolicy': 'Never', 'containers': [{'name': 'node', **container, 'env': env}]}
    node = {
        'name': 'node',
        'template': {
            'metadata': {'labels': {'trainer.kubeflow.org/trainjob-ancestor-step': 'trainer'}},
            'spec': {'backoffLimit': 0, 'template': {'spec': spec}},
        },
    }
    jobset = {
        # A worker that fails takes the others with it, so all of them start again and go on at the last checkpoint.
        'failurePolicy': {'maxRestarts': retries},
        'network': {'enableDNSHostnames': True, 'publishNotReadyAddresses': True},
        'replicatedJobs': [node],
    }
    version = 'trainer.kubeflow.org/v1alpha1'
    runtime = {
        'apiVersion': version,
        'kind': 'TrainingRuntime',
        'metadata': {'name': name},
        'spec': {'mlPolicy': {'numNodes': workers}, 'template': {'spec': jobset}},
    }
    reference = {'apiGroup': 'trainer.kubeflow.org', 'kind': 'TrainingRuntime', 'name': name}
    job = {
        'apiVersion': version,
        'kind': 'TrainJob',
        'metadata': {'name': name},
        'spec': {'runtimeRef': reference, 'trainer': {'numNodes': workers}},
    }
    return [runtime, job]


def _make_tfjob(name: str, workers: int, retries: int, pod: Document) -> list[Document]:
    """Makes a TFJob; its operator wants a container of the name `tensorflow`, and gives it TF_CONFIG."""
    [container] = pod['containers']
    replica = {
        'replicas': workers,
        'restartPolicy': 'OnFailure',
        'template': {'spec': {**pod, 'containers': [{'name': 'tensorflow', **container}]}},
    }
    spec = {
        'runPolicy': {'backoffLimit': retries, 'cleanPodPolicy': 'None'},
        'successPolicy': 'AllWorkers',
        'tfReplicaSpecs': {'Worker': replica},
    }
    return [{'apiVersion': 'kubeflow.org/v1', 'kind': 'TFJob', 'metadata': {'name': name}, 'spec': spec}]
