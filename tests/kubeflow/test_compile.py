"""The package for Kubeflow Pipelines: what the server reads in it."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.pipeline_spec import pipeline_spec_pb2

from components.errors import UsageError
from kubeflow.compile import COMMAND, create_package, write_package
from kubeflow.lint.linter import lint_package
from kubeflow.pages import PAGES
from kubeflow.steps import GPU_VARIABLE, describe_platform
from kubeflow.target import Target
from pipeline.kubeflow_config import StepConfig
from tests.conftest import PROJECT, run_cli
from tests.kubeflow.compiling import COMPILED, TARGET, VOLUME, get_container, make_config, parse

GPU_TARGET = Target(
    image='example/cifar10:1.0', gpu_image=f'example/gpu@sha256:{"0" * 64}', pipeline_root='s3://bucket/root'
)
GPU = (
    'kubeflow.steps.Trainer.gpu=2',
    'kubeflow.steps.Trainer.tolerations=nvidia.com/gpu:NoSchedule,team=vision',
    'kubeflow.steps.Trainer.node_selector=disk=ssd',
    'kubeflow.steps.Trainer.timeout_s=7200',
    'kubeflow.steps.ImportExampleGen.memory=2Gi',
    'kubeflow.steps.ImportExampleGen.retries=5',
    'kubeflow.steps.Pusher.retries=0',
    'kubeflow.default.env=MODE=test=1',
    'kubeflow.default.secret_env=TOKEN=registry:token',
)


@pytest.fixture(scope='module')
def package() -> str:
    return create_package(make_config(), TARGET)


@pytest.fixture(scope='module')
def spec(package) -> dict:
    return parse(package)[0]


@pytest.fixture(scope='module')
def gpu_package() -> str:
    return create_package(make_config(*GPU), GPU_TARGET)


@pytest.mark.parametrize('name', ['package', 'gpu_package'])
def test_the_server_knows_every_field(name, request):
    spec, platform = yaml.safe_load_all(request.getfixturevalue(name))
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(spec['deploymentSpec'], pipeline_spec_pb2.PipelineDeploymentConfig())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    assert spec['schemaVersion'] == '2.1.0'
    # servers before 2.16 do not know this field, which the SDK's schema has, and refuse a package with it
    assert all('literals' not in definition for definition in spec['root']['inputDefinitions']['parameters'].values())


def test_the_sdk_loads_it_and_finds_the_parameters_with_their_defaults(package):
    inputs = kfp_components.load_component_from_text(package).component_spec.inputs
    assert {name: inputs[name].default for name in ('data', 'serving', 'trainer_epochs', 'gate_accuracy')} == {
        'data': 'gs://bucket/data',
        'serving': '/mnt/models',
        'trainer_epochs': 2,
        'gate_accuracy': 0.8,
    }
    assert inputs['trainer_image_size'].type == 'Integer'


def test_it_has_every_component_and_only_containers(spec):
    assert set(spec['root']['dag']['tasks']) == set(spec['components']) == set(COMPILED)
    executors = spec['deploymentSpec']['executors']
    assert set(executors) == {f'{name}_executor' for name in COMPILED}
    for executor in executors.values():
        assert set(executor) == {'container'}
        assert 'lifecycle' not in executor['container']
    assert not [task for task in spec['root']['dag']['tasks'].values() if 'triggerPolicy' in task]
    assert spec['defaultPipelineRoot'] == 'minio://mlpipeline/v2'


def test_every_step_has_image_command_and_executor(spec):
    from tfx.utils import import_utils

    for name in COMPILED:
        container = get_container(spec, name)
        assert container['image'] == TARGET.image
        assert container['command'] == list(COMMAND)
        option, executor, *others = container['args']
        assert option == '--executor_class_path'
        assert callable(import_utils.import_class_by_path(executor).Do)
        assert others[:2] == ['--json_serialized_invocation_args', '{{$}}']
        assert '--direct_running_mode=in_memory' in others


def test_every_step_gets_what_the_config_says(gpu_package):
    config = make_config(*GPU).kubeflow
    spec, _ = parse(gpu_package)
    for name in COMPILED:
        step, task = config.get_step(name), spec['root']['dag']['tasks'][name]
        container = get_container(spec, name)
        assert container['resources']['resourceCpuRequest'] == step.cpu
        assert container['resources']['resourceMemoryLimit'] == step.memory
        promise = [{'name': GPU_VARIABLE, 'value': '2'}] if step.gpu else []
        assert container['env'] == [{'name': 'MODE', 'value': 'test=1'}, *promise]
        assert task['cachingOptions'] == {'enableCache': step.cache}
        assert task.get('retryPolicy', {}).get('maxRetryCount', 0) == step.retries
    assert get_container(spec, 'ImportExampleGen')['resources']['resourceMemoryRequest'] == '2Gi'
    assert spec['root']['dag']['tasks']['ImportExampleGen']['retryPolicy'] == {
        'maxRetryCount': 5,
        'backoffDuration': '60s',
        'backoffFactor': 2,
        'backoffMaxDuration': '86400s',
    }


def test_steps_that_read_changing_folders_are_not_cached(spec):
    uncached = {
        name for name, task in spec['root']['dag']['tasks'].items() if not task['cachingOptions']['enableCache']
    }
    assert uncached == {'ImportExampleGen', 'DataCheck', 'BaseModelFinder', 'BaselineFinder', 'BulkInferrer'}


def test_only_the_trainer_carries_the_gpu_and_its_image(gpu_package, package):
    spec, _ = parse(gpu_package)
    accelerators = {name: get_container(spec, name)['resources'].get('accelerator') for name in COMPILED}
    new, old = {'resourceType': 'nvidia.com/gpu', 'resourceCount': '2'}, {'type': 'nvidia.com/gpu', 'count': '2'}
    assert accelerators.pop('Trainer') == {**new, **old}, 'a server that knows only one pair ignores the other silently'
    assert set(accelerators.values()) == {None}
    images = {name: get_container(spec, name)['image'] for name in COMPILED}
    assert images.pop('Trainer') == GPU_TARGET.gpu_image
    assert set(images.values()) == {GPU_TARGET.image}
    assert 'accelerator' not in package


def test_the_platform_document_has_the_fields_that_servers_read_since_2_5(gpu_package):
    spec, executors = parse(gpu_package)
    assert set(executors) == set(spec['deploymentSpec']['executors'])
    common = {
        'secretAsEnv': [
            {
                'secretNameParameter': {'runtimeValue': {'constant': 'registry'}},
                'keyToEnv': [{'secretKey': 'token', 'envVar': 'TOKEN'}],
            }
        ],
        'pvcMount': [{'pvcNameParameter': {'runtimeValue': {'constant': 'models'}}, 'mountPath': '/mnt/models'}],
    }
    assert executors['Pusher_executor'] == common
    assert executors['Trainer_executor'] == {
        **common,
        'nodeSelector': {'labels': {'disk': 'ssd'}},
        'tolerations': [
            {'key': 'nvidia.com/gpu', 'operator': 'Exists', 'effect': 'NoSchedule'},
            {'key': 'team', 'operator': 'Equal', 'value': 'vision'},
        ],
        'activeDeadlineSeconds': '7200',
    }


def test_a_mount_path_ends_without_a_slash_so_that_paths_below_it_are_found():
    (mount,) = describe_platform(StepConfig(pvcs=('models:/mnt/models/',)))['pvcMount']
    assert mount['mountPath'] == '/mnt/models'


def test_every_artifact_type_is_a_class_that_the_command_can_import(spec):
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as utils

    titles = set()
    for name, component in spec['components'].items():
        for side in ('inputDefinitions', 'outputDefinitions'):
            for key, artifact in component.get(side, {}).get('artifacts', {}).items():
                if side == 'outputDefinitions' and key in PAGES:
                    continue  # the command takes these out of what TFX is given
                raw = pipeline_spec_pb2.RuntimeArtifact(uri='minio://b/a')
                json_format.ParseDict(artifact['artifactType'], raw.type)
                parsed = utils.parse_raw_artifact_dict({key: pipeline_spec_pb2.ArtifactList(artifacts=[raw])}, {})
                titles.add(type(parsed[key][0]).__name__)
                if side == 'inputDefinitions':
                    arguments = get_container(spec, name)['args']
                    inputs = json.loads(arguments[arguments.index('--json_serialized_inputs_spec_args') + 1])
                    assert inputs['artifacts'][key] == artifact, (
                        'the server does not pass the type, so the arguments do'
                    )
    assert {'Examples', 'Model', 'Baseline', 'DataReport'} <= titles


def test_the_pages_of_a_run_show_figures_and_descriptions(spec):
    shown = {
        f'{step}.{name}': artifact['artifactType']['schemaTitle']
        for step, component in spec['components'].items()
        for name, artifact in component.get('outputDefinitions', {}).get('artifacts', {}).items()
        if 'schemaTitle' in artifact['artifactType']
    }
    assert shown == {
        'Trainer.training_metrics': 'system.Metrics',
        'Evaluator.evaluation_metrics': 'system.Metrics',
        'Evaluator.confusion_matrix': 'system.ClassificationMetrics',
        'ServingCheck.serving_metrics': 'system.Metrics',
        'Report.report_page': 'system.HTML',
    }
    parameters = spec['root']['inputDefinitions']['parameters']
    assert parameters['trainer_epochs']['description'].startswith('Passes over the train split')
    descriptions = [spec['pipelineInfo']['description'], *(entry['description'] for entry in parameters.values())]
    assert all(0 < len(text) <= 1024 and '\n' not in text for text in descriptions), (
        'the schema allows 1,024 characters'
    )
    assert all(task['taskInfo']['name'] == name for name, task in spec['root']['dag']['tasks'].items())


def test_no_path_of_this_machine_is_in_it(package, gpu_package):
    import tfx

    for path in (PROJECT, Path.home(), Path(tfx.__file__).parents[1]):
        assert path == Path('/') or f'{path}/' not in package + gpu_package
    assert '/unused' not in package + gpu_package


def test_compiling_twice_gives_the_same_bytes(gpu_package):
    assert create_package(make_config(*GPU), GPU_TARGET) == gpu_package


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    out = tmp_path / 'p.yaml'
    out.mkdir()
    with pytest.raises(UsageError, match='cannot be written: Is a directory'):
        write_package(make_config(), TARGET, out)
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_server_would_refuse_is_not_written(tmp_path):
    config = make_config('kubeflow.default.pvcs=')
    with pytest.raises(UsageError, match=r'would refuse this package:\n  \S+: The step has no volume at /mnt/models: '):
        write_package(config, TARGET, tmp_path / 'p.yaml')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('setting', 'warned'),
    [
        ('trainer.epochs=2', True),
        ('trainer.checkpoint_dir=/mnt/models/checkpoints', False),
        ('kubeflow.steps.Trainer.retries=0', False),
    ],
)
def test_retries_of_a_trainer_whose_checkpoints_die_with_the_pod_are_warned_of(tmp_path, setting, warned):
    note = write_package(make_config(setting), TARGET, tmp_path / 'p.yaml')
    assert ('warning: ' in note and 'trainer.checkpoint_dir' in note) == warned


def test_the_trainer_waits_for_the_tuner_and_takes_what_it_chose():
    package = create_package(make_config('trainer.warm_start=none', 'tuner.trials=2'), TARGET)
    assert not [problem for problem in lint_package(package) if problem.severity == 'error']
    spec, executors = parse(package)
    assert 'Tuner_executor' in executors
    assert get_container(spec, 'Tuner')['resources'] == get_container(spec, 'Trainer')['resources']
    tasks = spec['root']['dag']['tasks']
    assert tasks['Trainer']['inputs']['artifacts']['hyperparameters'] == {
        'taskOutputArtifact': {'producerTask': 'Tuner', 'outputArtifactKey': 'best_hyperparameters'}
    }
    assert 'Tuner' in tasks['Trainer']['dependentTasks']
    given = tasks['Tuner']['inputs']['parameters']
    assert given['custom_config.trainer.epochs'] == {'componentInputParameter': 'trainer_epochs'}


def test_a_folder_for_checkpoints_that_the_trainer_does_not_mount_is_refused(tmp_path):
    with pytest.raises(UsageError, match='The step has no volume at /tmp/checkpoints'):
        write_package(make_config('trainer.checkpoint_dir=/tmp/checkpoints'), TARGET, tmp_path / 'p.yaml')


def test_weights_on_a_volume_that_only_the_trainer_mounts_are_accepted():
    volumes = f'kubeflow.steps.Trainer.pvcs={VOLUME},weights:/weights'
    config = make_config(volumes, 'trainer.weights=/weights/resnet50.h5')
    assert not [problem for problem in lint_package(create_package(config, TARGET)) if problem.severity == 'error']


def test_the_task_that_tells_a_webhook_has_the_settings_of_all_steps_but_no_gpu():
    target = dataclasses.replace(GPU_TARGET, webhook='https://example.com/hook')
    settings = ('gpu=1', 'env=HTTPS_PROXY=http://proxy:3128', 'tolerations=team=vision', 'memory=2Gi', 'retries=3')
    config = make_config(*(f'kubeflow.default.{setting}' for setting in settings))
    package = create_package(config, target)
    spec, platform = parse(package)
    tasks, steps = spec['root']['dag']['tasks'], spec['components']['comp-exit-handler-1']['dag']['tasks']
    assert set(tasks) == {'exit-handler-1', 'notify'}
    parameter = spec['root']['inputDefinitions']['parameters']['webhook']
    assert (parameter['defaultValue'], parameter['description']) == (
        target.webhook,
        'Address that is told how the run ended.',
    )
    assert tasks['notify']['retryPolicy'] == steps['Pusher']['retryPolicy']
    assert tasks['notify']['cachingOptions'] == {'enableCache': False}
    assert set(platform) == {f'{name}_executor' for name in (*COMPILED, 'notify')}
    assert platform['notify_executor'] == platform['Pusher_executor']
    container, pusher = get_container(spec, 'notify'), get_container(spec, 'Pusher')
    promise = {'name': GPU_VARIABLE, 'value': '1'}
    assert (container['image'], [*container['env'], promise]) == (target.image, pusher['env'])
    assert pusher['resources'].pop('accelerator')
    assert container['resources'] == pusher['resources']
    assert [problem.where for problem in lint_package(package)] == ['file'], 'only the warning of retries'


@pytest.mark.slow
def test_the_command_writes_the_package(package, tmp_path):
    out = tmp_path / 'p.yaml'
    options = ['--image', TARGET.image, '--pipeline-root', TARGET.pipeline_root, '--data', 'gs://bucket/data']
    options += ['--serving', '/mnt/models', '--set', f'kubeflow.default.pvcs={VOLUME}']
    options += ['--set', 'bulk_input=gs://bucket/new', '--set', 'trainer.warm_start=serving']
    answer = run_cli('compile', '--out', out, *options)
    assert answer.returncode == 0
    first, warning = answer.stdout.splitlines()
    assert first == f'cifar10-sample written to {out}'
    assert warning.startswith('warning: kubeflow.steps.Trainer.retries=2 starts a Trainer that failed at epoch 0 again')
    assert answer.stderr == ''
    assert out.read_text() == package
    assert list(tmp_path.iterdir()) == [out]
