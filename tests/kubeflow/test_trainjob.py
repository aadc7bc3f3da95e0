"""`trainjob`: manifests that the operators accept, and pods' commands that train one model together."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import tensorflow as tf
import yaml

from components import features
from components.data import cifar10
from components.errors import UsageError
from kubeflow.compile import create_package
from kubeflow.target import Target
from kubeflow.trainjob import TrainJob, create_job
from tests.conftest import IMAGE_SIZE, PROJECT, run_cli
from tests.kubeflow.compiling import make_config
from tests.trainer.test_cluster import find_ports, finish_workers
from trainer.train import REPORT_FILE

CRDS = PROJECT / 'tests' / 'kubeflow' / 'crds'
KINDS = ('TrainJob', 'TFJob')
TARGET = Target(image='example/cifar10:1.0', gpu_image='example/gpu:1.0', pipeline_root='minio://mlpipeline/v2')
SETTINGS = (
    f'trainer.image_size={IMAGE_SIZE}',
    'trainer.epochs=2',
    'trainer.head_units=16',
    'trainer.strategy=multi_worker',
    'trainer.warm_start=none',
    'kubeflow.steps.Trainer.gpu=1',
    'kubeflow.steps.Trainer.timeout_s=7200',
    'kubeflow.steps.Trainer.tolerations=nvidia.com/gpu:NoSchedule',
    'kubeflow.steps.Trainer.node_selector=disk=ssd',
    'kubeflow.default.env=MODE=test',
    'kubeflow.default.secret_env=TOKEN=registry:token',
)


@pytest.fixture(scope='module')
def shared(tmp_path_factory) -> Path:
    """The folder that stands for the volume, under the same path as in the pods."""
    return tmp_path_factory.mktemp('shared')


@pytest.fixture(scope='module')
def package(shared) -> Path:
    path = shared / 'package.yaml'
    path.write_text(create_package(make_config(*SETTINGS, f'kubeflow.steps.Trainer.pvcs=claim:{shared}'), TARGET))
    return path


@pytest.fixture(scope='module')
def job(package, shared) -> TrainJob:
    return TrainJob(package, f'{shared}/training', 2, 'TrainJob', ['trainer_epochs=1'])


@pytest.fixture(params=KINDS)
def documents(job, request) -> list[dict]:
    return create_job(job._replace(kind=request.param))


def get_pod(documents: list[dict]) -> dict:
    """The pods' `spec`."""
    spec = documents[0]['spec']
    if documents[0]['kind'] == 'TFJob':
        return spec['tfReplicaSpecs']['Worker']['template']['spec']
    [replicated] = spec['template']['spec']['replicatedJobs']
    return replicated['template']['spec']['template']['spec']


def validate(documents: list[dict]) -> None:
    for document in documents:
        schema = yaml.safe_load((CRDS / f'{document["kind"].lower()}.yaml').read_text())
        jsonschema.validate(document, schema)
    pod = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'x'}, 'spec': get_pod(documents)}
    kubernetes_validate.validate(pod, '1.31', strict=True)


def test_the_operators_accept_every_field(documents):
    validate(documents)


@pytest.mark.parametrize('kind', KINDS)
def test_the_validation_sees_unknown_fields(job, kind):
    documents = create_job(job._replace(kind=kind))
    for place in (documents[0]['spec'], documents[-1]['spec'], get_pod(documents)):
        place['nodes'] = 2
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError), match='nodes'):
            validate(documents)
        del place['nodes']


def test_a_pod_is_the_trainers_step_of_the_package(documents, package, shared):
    pod = get_pod(documents)
    [container] = pod['containers']
    spec = next(iter(yaml.safe_load_all(package.read_text())))
    step = spec['deploymentSpec']['executors']['Trainer_executor']['container']
    assert (container['image'], container['command']) == ('example/gpu:1.0', step['command'])
    assert len(container['args']) == len(step['args'])
    [(given, placeholder)] = [pair for pair in zip(container['args'], step['args'], strict=True) if pair[0] != pair[1]]
    assert placeholder == '{{$}}'
    inputs = json.loads(given)['inputs']['parameterValues']
    assert inputs['custom_config.trainer.epochs'] == 1, 'from --parameter'
    assert inputs['custom_config.trainer.image_size'] == IMAGE_SIZE, "the package's default"
    assert container['resources']['limits'] == {'memory': '8Gi', 'nvidia.com/gpu': '1'}
    assert {'name': 'MODE', 'value': 'test'} in container['env']
    token = {'secretKeyRef': {'name': 'registry', 'key': 'token'}}
    assert {'name': 'TOKEN', 'valueFrom': token} in container['env']
    [volume], [mount] = pod['volumes'], container['volumeMounts']
    assert volume == {'name': mount['name'], 'persistentVolumeClaim': {'claimName': 'claim'}}
    assert mount['mountPath'] == str(shared)
    assert (pod['activeDeadlineSeconds'], pod['nodeSelector']) == (7200, {'disk': 'ssd'})
    assert pod['tolerations'] == [{'key': 'nvidia.com/gpu', 'operator': 'Exists', 'effect': 'NoSchedule'}]


def test_the_operators_find_their_container_and_the_number_of_workers(job):
    runtime, trainjob = create_job(job)
    assert trainjob['spec']['runtimeRef']['name'] == runtime['metadata']['name']
    assert trainjob['spec']['trainer']['numNodes'] == runtime['spec']['mlPolicy']['numNodes'] == 2
    assert get_pod([runtime])['containers'][0]['name'] == 'node'
    [tfjob] = create_job(job._replace(kind='TFJob'))
    assert tfjob['spec']['tfReplicaSpecs']['Worker']['replicas'] == 2
    assert get_pod([tfjob])['containers'][0]['name'] == 'tensorflow'
    assert 'TF_CONFIG' not in {entry['name'] for entry in get_pod([tfjob])['containers'][0]['env']}, (
        'the operator sets it'
    )


def test_the_names_of_pods_stay_short_enough_for_host_names(job, package, tmp_path):
    spec, platform = yaml.safe_load_all(package.read_text())
    spec = {**spec, 'pipelineInfo': {'name': '9' * 43 + '-' + 'x' * 40}}
    long = tmp_path / 'long.yaml'
    long.write_text(yaml.safe_dump_all([spec, platform]))
    name = create_job(job._replace(package=long))[1]['metadata']['name']
    assert name == 'train-' + '9' * 43
    assert len(f'{name}-node-0-99') <= 63


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'workers': 1}, '--workers takes a number of at least 2'),
        ({'folder': '/elsewhere'}, '--folder takes a folder on a volume that the Trainer mounts'),
        ({'folder': 'training'}, '--folder takes a folder on a volume'),
        ({'assignments': ['epochs=1']}, "The pipeline has no parameter 'epochs'"),
        ({'assignments': ['trainer_epochs=0']}, 'trainer_epochs'),
    ],
)
def test_wrong_options_are_named(job, changes, message):
    with pytest.raises(UsageError, match=message):
        create_job(job._replace(**changes))


def change_package(package: Path, out: Path, change) -> Path:
    documents = [*yaml.safe_load_all(package.read_text())]
    change(*documents)
    out.write_text(yaml.safe_dump_all(documents))
    return out


@pytest.mark.parametrize(('name', 'value'), [('strategy', 'mirrored'), ('weight_average', 'ema')])
def test_settings_that_several_workers_cannot_have_are_refused(job, package, tmp_path, name, value):
    def change(spec, platform):
        constant = spec['root']['dag']['tasks']['Trainer']['inputs']['parameters']['custom_config']['runtimeValue']
        config = json.loads(constant['constant'])
        config['trainer'][name] = value
        constant['constant'] = json.dumps(config)

    changed = change_package(package, tmp_path / 'changed.yaml', change)
    with pytest.raises(UsageError, match=f'trainer.{name}={value}.* Compile it with --set trainer.{name}='):
        create_job(job._replace(package=changed))


def test_a_kubernetes_setting_that_would_be_lost_is_named(job, package, tmp_path):
    def change(spec, platform):
        executors = platform['platforms']['kubernetes']['deploymentSpec']['executors']
        executors['Trainer_executor']['imagePullPolicy'] = 'Always'

    changed = change_package(package, tmp_path / 'changed.yaml', change)
    with pytest.raises(UsageError, match='imagePullPolicy'):
        create_job(job._replace(package=changed))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda tasks: tasks.pop('Trainer'), 'has no step Trainer'),
        (
            lambda tasks: tasks['Trainer']['inputs']['parameters'].pop('custom_config'),
            'The step Trainer of .* is not the one',
        ),
    ],
)
def test_a_package_without_our_trainer_is_named(job, package, tmp_path, change, message):
    changed = change_package(
        package, tmp_path / 'changed.yaml', lambda spec, platform: change(spec['root']['dag']['tasks'])
    )
    with pytest.raises(UsageError, match=message):
        create_job(job._replace(package=changed))


def test_the_command_writes_the_manifest_or_a_sentence(job, tmp_path):
    arguments = ['trainjob', job.package, '--folder', job.folder, '--workers', '2', '--parameter', 'trainer_epochs=1']
    answer = run_cli(*arguments, '--out', tmp_path / 'job.yaml')
    assert (answer.returncode, answer.stderr) == (0, '')
    assert answer.stdout == f'TrainJob for 2 workers written to {tmp_path / "job.yaml"}\n'
    assert [*yaml.safe_load_all((tmp_path / 'job.yaml').read_text())] == create_job(job)
    answer = run_cli(*arguments, '--out', tmp_path / 'missing' / 'job.yaml')
    assert answer.returncode == 2
    assert answer.stderr.startswith('error: --out takes a file that ends in .yaml, in a folder that exists.')


def start_pod(container: dict, index: int, ports: list[int], folder: Path) -> subprocess.Popen:
    """Starts a pod's command, with what the operator and Kubernetes would set, and loopback in place of the network."""
    environment = {'PATH': f'{Path(sys.executable).parent}:{os.defpath}', 'HOME': str(folder), 'no_proxy': '127.0.0.1'}
    for entry in container['env']:
        if 'GPU' in entry['name']:
            continue  # the package promises the step a GPU, which may not be here
        source = entry.get('valueFrom', {})
        text = str(index) if 'fieldRef' in source else entry.get('value', 'secret')
        for name, value in environment.items():
            text = text.replace(f'$({name})', value)
        environment[entry['name']] = text
    config = json.loads(environment['TF_CONFIG'])
    assert config['cluster']['worker'] == [
        f'train-cifar10-sample-node-0-{i}.train-cifar10-sample:2222' for i in range(2)
    ]
    config['cluster']['worker'] = [f'127.0.0.1:{port}' for port in ports]
    environment['TF_CONFIG'] = json.dumps(config)
    assert config['task'] == {'type': 'worker', 'index': index}
    args = [part.replace('/tmp/trainjob/', f'{folder}/{index}/') for part in container['args']]
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    return subprocess.Popen([*container['command'], *args], cwd=folder, env=environment, text=True, **pipes)


@pytest.mark.slow
def test_the_pods_train_one_model_and_the_first_writes_it(job, shared, sample_data, transform_graph, tmp_path):
    folder = Path(job.folder)
    for split in (features.TRAIN_SPLIT, features.VAL_SPLIT):
        shutil.copytree(sample_data / split, folder / 'examples' / f'Split-{split}')
    shutil.copytree(transform_graph, folder / 'transform_graph')
    (folder / 'schema').mkdir()
    shutil.copy(transform_graph / 'metadata' / 'schema.pbtxt', folder / 'schema')
    container = copy.deepcopy(get_pod(create_job(job))['containers'][0])
    ports = find_ports(2)
    finish_workers([start_pod(container, index, ports, tmp_path) for index in range(2)])
    # Training and validation, of the first worker only; each of two separate trainings would have its own.
    assert len(list((folder / 'model_run').rglob('events.*'))) == 2
    report = json.loads((folder / 'model_run' / '1' / REPORT_FILE).read_text())
    assert report['epochs'] == 1
    model = tf.saved_model.load(str(folder / 'model' / '1' / 'Format-Serving'))
    answer = model.signatures[features.SIGNATURE_RAW](image=tf.zeros([3, *cifar10.CONTRACT.image_shape], tf.uint8))
    assert answer[features.OUTPUT_PROBABILITIES].shape == (3, 10)
