"""kubeflow/serving: base and overlay are valid for Kubernetes, and fit what the pipeline writes."""

import copy
import os
import re
import subprocess

import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.serving import models_config, version_labels, versions
from components.serving.server_files import (
    BATCHING_FILE,
    MONITORING_FILE,
    choose_batching,
    make_batching,
    make_message,
    make_monitoring,
)
from tests.conftest import PROJECT

SERVING = PROJECT / 'kubeflow' / 'serving'
FOLDERS = ['base', *sorted(f'overlays/{folder.name}' for folder in (SERVING / 'overlays').iterdir())]
DOCUMENTS = ''.join((PROJECT / 'docs' / name).read_text() for name in ('kubeflow.md', 'serving.md'))
KUBERNETES = '1.31'


def apply_patch(document: dict, operations: list[dict]) -> None:
    """Applies `add` and `replace` of JSON Patch (RFC 6902), the only operations that our overlays use."""
    for operation in operations:
        assert operation['op'] in ('add', 'replace')
        *path, last = [int(key) if key.isdigit() else key for key in operation['path'].split('/')[1:]]
        place = document
        for key in path:
            place = place[key]
        assert operation['op'] == 'add' or place[last] is not None
        place[last] = operation['value']


def build(folder) -> list[dict]:
    """Returns what `kustomize build` gives, for the fields that we use: resources and patches."""
    kustomization = yaml.safe_load((folder / 'kustomization.yaml').read_text())
    assert not {*kustomization} - {'apiVersion', 'kind', 'resources', 'patches'}
    documents = []
    for name in kustomization['resources']:
        path = (folder / name).resolve()
        documents += build(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    for patch in kustomization.get('patches', []):
        [found] = [
            document
            for document in documents
            if (document['kind'], document['metadata']['name']) == (patch['target']['kind'], patch['target']['name'])
        ]
        apply_patch(found, yaml.safe_load(patch['patch']))
    return documents


def find(documents: list[dict], kind: str) -> dict:
    [found] = [document for document in documents if document['kind'] == kind]
    return found


@pytest.fixture(scope='module')
def base():
    return build(SERVING / 'base')


@pytest.fixture(scope='module')
def pod(base):
    return find(base, 'Deployment')['spec']['template']['spec']


@pytest.fixture(scope='module')
def server(pod):
    [container] = pod['containers']
    return container


@pytest.mark.parametrize('folder', FOLDERS)
def test_every_document_is_valid_for_kubernetes(folder):
    documents = build(SERVING / folder)
    assert len(documents) >= 6
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_validation_sees_an_unknown_field(base):
    broken = copy.deepcopy(find(base, 'Deployment'))
    broken['spec']['template']['spec']['containers'][0]['readynessProbe'] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_every_file_is_part_of_a_kustomization():
    for file in SERVING.rglob('*.yaml'):
        listed = yaml.safe_load((file.parent / 'kustomization.yaml').read_text())['resources']
        assert file.name == 'kustomization.yaml' or file.name in listed


def test_the_overlay_changes_replicas_and_resources(base):
    patched = build(SERVING / 'overlays' / 'production')
    assert find(patched, 'HorizontalPodAutoscaler')['spec']['minReplicas'] == 2
    assert (
        find(patched, 'Deployment')['spec']['template']['spec']['containers'][0]['resources']['requests']['cpu'] == '4'
    )
    assert find(base, 'HorizontalPodAutoscaler')['spec']['minReplicas'] == 1


def test_production_is_ready_only_for_the_version_label_that_the_documents_tell_clients_to_use(server):
    model = f'/v1/models/{models_config.MODEL_NAME}'
    patched = find(build(SERVING / 'overlays' / 'production'), 'Deployment')['spec']['template']['spec']['containers'][
        0
    ]
    assert patched['readinessProbe']['httpGet']['path'] == f'{model}/labels/{versions.STABLE}/metadata'
    assert server['readinessProbe']['httpGet']['path'] == f'{model}/metadata'  # no label before the first promote
    assert f'localhost:8501{model}/labels/{versions.STABLE}:predict' in DOCUMENTS


@pytest.mark.parametrize('folder', FOLDERS)
def test_the_manifests_have_no_namespace_since_it_must_be_that_of_the_runs(folder):
    documents = build(SERVING / folder)
    assert 'Namespace' not in {document['kind'] for document in documents}
    assert not [document for document in documents if 'namespace' in document['metadata']]
    assert f'kubectl apply -n NAMESPACE -k kubeflow/serving/{folder}\n' in DOCUMENTS


@pytest.mark.parametrize('folder', FOLDERS)
def test_the_server_mounts_the_claim_that_the_example_of_compile_pushes_to(folder):
    pod = find(build(SERVING / folder), 'Deployment')['spec']['template']['spec']
    [served] = [
        volume['persistentVolumeClaim']['claimName'] for volume in pod['volumes'] if volume['name'] == 'serving'
    ]
    command = DOCUMENTS.partition('python -m pipeline compile --out cifar10.yaml')[2].partition('\n\n')[0]
    mounts = dict(mount.split(':') for mount in re.search(r'\.pvcs=(\S+)', command).group(1).split(','))
    assert mounts[served] == re.search(r'--serving (\S+)', command).group(1)


def test_ports_volumes_and_targets_refer_to_each_other(base, pod, server):
    labels = find(base, 'Deployment')['spec']['template']['metadata']['labels'].items()
    assert find(base, 'Deployment')['spec']['selector']['matchLabels'].items() <= labels
    assert find(base, 'PodDisruptionBudget')['spec']['selector']['matchLabels'].items() <= labels
    service = find(base, 'Service')['spec']
    assert service['selector'].items() <= labels
    ports = {port['name']: port['containerPort'] for port in server['ports']}
    assert {port['targetPort']: port['port'] for port in service['ports']} == ports
    assert {f'--port={ports["grpc"]}', f'--rest_api_port={ports["rest"]}'} <= {*server['args']}
    target = find(base, 'HorizontalPodAutoscaler')['spec']['scaleTargetRef']
    assert target['name'] == find(base, 'Deployment')['metadata']['name']
    volumes = {volume['name']: volume for volume in pod['volumes']}
    assert (
        volumes['serving']['persistentVolumeClaim']['claimName']
        == find(base, 'PersistentVolumeClaim')['metadata']['name']
    )
    assert volumes['config']['configMap']['name'] == find(base, 'ConfigMap')['metadata']['name']
    for container in (*pod['initContainers'], server):
        assert {mount['name'] for mount in container['volumeMounts']} <= {*volumes}


def test_the_first_models_config_serves_the_newest_version_and_promote_keeps_its_path(base, server, tmp_path):
    text = find(base, 'ConfigMap')['data'][models_config.CONFIG_FILE]
    [config] = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    mount = {mount['name']: mount['mountPath'] for mount in server['volumeMounts']}['serving']
    assert (config.name, config.base_path) == (models_config.MODEL_NAME, mount)
    assert f'--model_config_file={mount}/{models_config.CONFIG_FILE}' in server['args']
    (tmp_path / models_config.CONFIG_FILE).write_text(text)
    (tmp_path / '7').mkdir()
    (tmp_path / '7' / 'saved_model.pb').touch()
    promotions = [version_labels.promote(tmp_path, 7, 'stable') for _ in range(2)]
    assert promotions == ['listed', 'labelled']
    written = (tmp_path / models_config.CONFIG_FILE).read_text()
    [config] = text_format.Parse(written, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (config.base_path, config.version_labels['stable']) == (mount, 7)


def test_the_server_starts_only_when_a_complete_version_is_there(pod, tmp_path):
    """Each `sleep` of the container pushes a part of a version: first an empty folder, then the model."""
    sleep, serving = tmp_path / 'bin' / 'sleep', tmp_path / 'serving'
    for folder in (sleep.parent, serving, tmp_path / 'config'):
        folder.mkdir()
    (tmp_path / 'config' / models_config.CONFIG_FILE).touch()
    sleep.write_text(f'#!/bin/sh\ncd {serving}\ntest -d 7 && touch 7/{versions.MODEL_FILE}\nmkdir -p 7\n')
    sleep.chmod(0o755)
    [container] = pod['initContainers']
    script = container['command'][-1].replace('/config/', f'{tmp_path}/config/')
    command = [*container['command'][:-1], script.replace('/models/cifar10/', f'{serving}/')]
    subprocess.run(command, env={'PATH': f'{sleep.parent}:{os.defpath}'}, timeout=60, check=True)
    assert (serving / models_config.CONFIG_FILE).exists()
    assert (serving / '7' / versions.MODEL_FILE).exists()


def test_the_batching_is_that_of_serve_for_a_version_without_measured_latencies(base, server):
    text = find(base, 'ConfigMap')['data'][BATCHING_FILE]
    [patched] = find(build(SERVING / 'overlays' / 'production'), 'Deployment')['spec']['template']['spec']['containers']
    cores = int(patched['resources']['requests']['cpu'])
    assert text_format.Parse(text, make_message('BatchingParameters')) == make_batching(choose_batching({}, cores))
    assert {'--enable_batching', f'--batching_parameters_file=/config/{BATCHING_FILE}'} <= {*server['args']}


def test_prometheus_reads_the_path_that_the_server_offers(base, server):
    text = find(base, 'ConfigMap')['data'][MONITORING_FILE]
    monitoring = text_format.Parse(text, make_message('MonitoringConfig'))
    annotations = find(base, 'Deployment')['spec']['template']['metadata']['annotations']
    assert monitoring == make_monitoring()
    assert annotations['prometheus.io/path'] == monitoring.prometheus_config.path
    assert annotations['prometheus.io/port'] == str(
        {port['name']: port['containerPort'] for port in server['ports']}['rest']
    )
    assert '--monitoring_config_file=/config/monitoring.config' in server['args']


def test_the_probes_ask_for_our_model(server):
    for probe in ('startupProbe', 'readinessProbe'):
        assert server[probe]['httpGet']['path'].startswith(f'/v1/models/{models_config.MODEL_NAME}')


def test_no_container_runs_as_root_or_from_a_moving_tag(pod):
    assert pod['securityContext']['runAsNonRoot']
    for container in (*pod['initContainers'], *pod['containers']):
        assert container['image'].rpartition(':')[2][0].isdigit()
        assert container['securityContext']['readOnlyRootFilesystem']
        assert not container['securityContext']['allowPrivilegeEscalation']
