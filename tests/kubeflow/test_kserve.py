"""kubeflow/serving/kserve: valid for KServe, and TensorFlow Serving finds the pushed version under its number."""

import copy
import os
import subprocess

import jsonschema
import pytest
import yaml

from components.serving import models_config
from components.serving.server_files import BATCHING_FILE, MONITORING_FILE
from tests.conftest import PROJECT
from tests.kubeflow.test_serving_manifests import SERVING, build, find

SCHEMA = yaml.safe_load((PROJECT / 'tests' / 'kubeflow' / 'crds' / 'inferenceservice.yaml').read_text())
FOLDERS = ('stable', 'canary')
RUNTIME_ARGS = (
    '--model_name=cifar10',
    '--port=9000',
    '--rest_api_port=8080',
    '--model_base_path=/mnt/models',
    '--rest_api_timeout_in_ms=60000',
)
"""The arguments of KServe's runtime kserve-tensorflow-serving (config/runtimes of kserve/kserve), 0.11 to 0.20."""


def load(folder: str) -> dict:
    [service] = build(SERVING / 'kserve' / folder)
    return service


@pytest.fixture(params=FOLDERS)
def service(request):
    return load(request.param)


def test_kserve_accepts_every_field(service):
    jsonschema.validate(service, SCHEMA)


@pytest.mark.parametrize(
    'path', [('predictor', 'canaryPercent'), ('predictor', 'model', 'storageURI'), ('predictors',)]
)
def test_the_validation_sees_an_unknown_field(service, path):
    broken = copy.deepcopy(service)
    place = broken['spec']
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = 10
    with pytest.raises(jsonschema.ValidationError, match=path[-1]):
        jsonschema.validate(broken, SCHEMA)


def test_the_model_has_the_name_that_clients_ask_for_and_comes_from_the_claim_of_the_base(service):
    assert service['metadata']['name'] == models_config.MODEL_NAME  # KServe's runtime has --model_name={{.Name}}
    claim = find(build(SERVING / 'base'), 'PersistentVolumeClaim')['metadata']['name']
    model = service['spec']['predictor']['model']
    [version] = [entry['value'] for entry in model['env'] if entry['name'] == 'VERSION']
    assert model['storageUri'] == f'pvc://{claim}/{version}'


def test_the_server_is_the_one_of_the_base_and_not_the_runtimes_own_old_one(service):
    [server] = find(build(SERVING / 'base'), 'Deployment')['spec']['template']['spec']['containers']
    assert server['image'] == f'tensorflow/serving:{service["spec"]["predictor"]["model"]["runtimeVersion"]}'


def test_without_requests_there_are_no_pods(service):
    assert service['spec']['predictor']['minReplicas'] == 0
    assert service['metadata']['annotations']['serving.kserve.io/deploymentMode'] == 'Serverless'  # as Standard cannot


def test_the_canary_differs_in_the_version_and_in_its_share_of_the_requests():
    stable, canary = (load(folder)['spec']['predictor'] for folder in FOLDERS)
    assert 'canaryTrafficPercent' not in stable
    assert 0 < canary.pop('canaryTrafficPercent') < 50
    for predictor in (stable, canary):
        del predictor['model']['storageUri'], predictor['model']['env']
    assert stable == canary


def test_the_server_finds_the_version_under_its_number(service, tmp_path):
    """KServe appends the runtime's arguments to the command; a stand-in for the server shows what it is given."""
    model = service['spec']['predictor']['model']
    environment = {entry['name']: entry['value'] for entry in model['env']}
    mounted, versions = tmp_path / 'mnt', tmp_path / 'versions'
    mounted.mkdir()
    (mounted / 'saved_model.pb').write_text('the model')
    server = tmp_path / 'bin' / 'tensorflow_model_server'
    server.parent.mkdir()
    server.write_text(f'#!/bin/sh\necho "$@"\ncat {versions}/{environment["VERSION"]}/saved_model.pb\n')
    server.chmod(0o755)
    script = model['command'][2].replace('/tmp/', f'{tmp_path}/').replace('/mnt/models', str(mounted))
    command = [*model['command'][:2], script, *model['command'][3:], *RUNTIME_ARGS, *model.get('args', ())]
    environment['PATH'] = f'{server.parent}:{os.defpath}'
    for _ in range(2):  # Kubernetes restarts a container in the same pod, where the link is there already
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        arguments, content = ended.stdout.splitlines()
        # Of an option that is given twice the last one counts (Flags::Parse of TensorFlow's command_line_flags.cc).
        assert arguments.split() == [
            *RUNTIME_ARGS,
            f'--model_base_path={versions}',
            '--enable_batching',
            f'--batching_parameters_file={tmp_path}/batching.config',
            f'--monitoring_config_file={tmp_path}/monitoring.config',
        ]
        assert content == 'the model'
    shared = find(build(SERVING / 'base'), 'ConfigMap')['data']
    for name in (BATCHING_FILE, MONITORING_FILE):
        assert (tmp_path / name).read_text() == shared[name]


def test_the_documents_apply_both_and_name_their_versions():
    text = (PROJECT / 'docs' / 'serving.md').read_text()
    for folder in FOLDERS:
        assert f'kubectl apply -n NAMESPACE -k kubeflow/serving/kserve/{folder}\n' in text
