"""The linter of packages for Kubeflow Pipelines: a valid package, and what it says of broken ones."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

from components.errors import UsageError
from kubeflow.lint.linter import lint_package
from pipeline.__main__ import main
from tests.conftest import PROJECT

EXAMPLES = {'artifactType': {'instanceSchema': 'title: tfx.Examples\ntype: object\n'}}
MODEL = {'artifactType': {'schemaTitle': 'tfx.Model'}}


def make_executor(step: str, **resources) -> dict:
    command = ['python', '-m', 'kubeflow.entrypoint', '--executor_class_path', f'components.{step}.Executor']
    return {'container': {'image': 'registry.example/cifar10:1.0', 'command': command, 'resources': resources}}


def make_task(name: str, parameters: dict, artifacts: dict) -> dict:
    reads = {
        key: {'taskOutputArtifact': {'producerTask': task, 'outputArtifactKey': output}}
        for key, (task, output) in artifacts.items()
    }
    return {
        'taskInfo': {'name': name},
        'componentRef': {'name': name},
        'inputs': {'parameters': parameters, 'artifacts': reads},
        'dependentTasks': [task for task, _ in artifacts.values()],
        'cachingOptions': {'enableCache': True},
    }


def make_pipeline() -> dict:
    text, number = {'parameterType': 'STRING'}, {'parameterType': 'NUMBER_INTEGER'}
    tasks = {
        'Import': make_task('Import', {'input_base': {'componentInputParameter': 'data'}}, {}),
        'Train': make_task(
            'Train', {'epochs': {'runtimeValue': {'constant': 3}}}, {'examples': ('Import', 'examples')}
        ),
        'Push': make_task(
            'Push',
            {
                'push_destination': {
                    'runtimeValue': {'constant': '{"filesystem": {"base_directory": "/serving/model"}}'}
                }
            },
            {'model': ('Train', 'model')},
        ),
    }
    tasks['Train']['retryPolicy'] = {
        'maxRetryCount': 2,
        'backoffDuration': '30s',
        'backoffFactor': 2,
        'backoffMaxDuration': '86400s',
    }
    return {
        'schemaVersion': '2.1.0',
        'sdkVersion': 'tfx-1.21.0',
        'pipelineInfo': {'name': 'cifar10'},
        'defaultPipelineRoot': 'minio://mlpipeline/v2',
        'root': {
            'inputDefinitions': {'parameters': {'data': text | {'defaultValue': '/data/cifar10'}}},
            'dag': {'tasks': tasks},
        },
        'components': {
            'Import': {
                'executorLabel': 'Import_executor',
                'inputDefinitions': {'parameters': {'input_base': text}},
                'outputDefinitions': {'artifacts': {'examples': EXAMPLES}},
            },
            'Train': {
                'executorLabel': 'Train_executor',
                'inputDefinitions': {'parameters': {'epochs': number}, 'artifacts': {'examples': EXAMPLES}},
                'outputDefinitions': {'artifacts': {'model': MODEL}},
            },
            'Push': {
                'executorLabel': 'Push_executor',
                'inputDefinitions': {'parameters': {'push_destination': text}, 'artifacts': {'model': MODEL}},
            },
        },
        'deploymentSpec': {
            'executors': {
                'Import_executor': make_executor('importing', resourceCpuRequest='500m', resourceMemoryRequest='2Gi'),
                'Train_executor': make_executor(
                    'training',
                    resourceCpuLimit='4',
                    resourceMemoryLimit='8Gi',
                    accelerator={'resourceType': 'nvidia.com/gpu', 'resourceCount': '1'},
                ),
                'Push_executor': make_executor('pushing', resourceCpuRequest='1'),
            }
        },
    }


def make_platform() -> dict:
    def mount(path: str) -> list:
        return [{'pvcNameParameter': {'runtimeValue': {'constant': 'shared'}}, 'mountPath': path}]

    executors = {
        'Import_executor': {'pvcMount': mount('/data')},
        'Train_executor': {
            'nodeSelector': {'labels': {'gpu': 'yes'}},
            'tolerations': [{'key': 'nvidia.com/gpu', 'operator': 'Exists', 'effect': 'NoSchedule'}],
            'activeDeadlineSeconds': '86400',
            'secretAsEnv': [
                {
                    'secretNameParameter': {'runtimeValue': {'constant': 'store'}},
                    'keyToEnv': [{'secretKey': 'key', 'envVar': 'KEY'}],
                }
            ],
        },
        'Push_executor': {'pvcMount': mount('/serving')},
    }
    return {'platforms': {'kubernetes': {'deploymentSpec': {'executors': executors}}}}


def write(*documents: dict) -> str:
    return yaml.safe_dump_all(documents)


def change(path: str, value=None):
    """A function that sets one value of a pair (pipeline, platform): 'spec/root/dag' or 'platform/platforms'."""
    document, *keys, last = path.split('/')

    def apply(spec: dict, platform: dict) -> None:
        found = {'spec': spec, 'platform': platform}[document]
        for key in keys:
            found = found[int(key) if key.isdigit() else key]
        if value is None:
            del found[last]
        else:
            found[last] = copy.deepcopy(value)

    return apply


TASKS, COMPONENTS, EXECUTORS = 'spec/root/dag/tasks', 'spec/components', 'spec/deploymentSpec/executors'
PLATFORM = 'platform/platforms/kubernetes/deploymentSpec/executors'
CONTAINER = f'{EXECUTORS}/Train_executor/container'
PARAMETERS = 'spec/root/inputDefinitions/parameters'
RUNTIME = {'runtimeParameter': 'epochs'}
OTHER_ROOT = {'artifactUri': {'constant': '/home/me/weights'}, 'typeSchema': {'schemaTitle': 'tfx.Model'}}
NO_EXAMPLES = {'taskOutputArtifact': {'producerTask': 'Import', 'outputArtifactKey': 'records'}}

ERRORS = {
    'schema': (change('spec/schemaVersion', '2.0.0'), 'schemaVersion', '2.1.0 alone', 'use_pipeline_spec_2_1'),
    'unknown field': (
        change(f'{TASKS}/Train/retryPolicies', {}),
        'root.dag.tasks.Train.retryPolicies',
        'refuses the file',
        'Did you mean retryPolicy',
    ),
    'unknown field of an executor': (
        change(f'{CONTAINER}/environment', []),
        'deploymentSpec.executors.Train_executor.container.environment',
        'drops it silently',
        'Remove it',
    ),
    'unknown field of the platform': (
        change(f'{PLATFORM}/Train_executor/toleration', []),
        'platforms.kubernetes.deploymentSpec.executors.Train_executor.toleration',
        'drops it silently',
        'Did you mean tolerations',
    ),
    'unknown field of the pipeline in the platform': (
        change('platform/platforms/kubernetes/pipelineConfig', {'workspaces': {}}),
        'platforms.kubernetes.pipelineConfig.workspaces',
        '2.16 and 2.17 drop the whole platform document',
        'Did you mean workspace',
    ),
    'a platform value of a wrong type': (
        change(f'{PLATFORM}/Train_executor/nodeSelector/labels/gpu', True),
        'Train_executor.nodeSelector.labels.gpu',
        'does not take',
        'of type string',
    ),
    'a platform without kubernetes': (
        change('platform/platforms', {'vertex': {}}),
        'document 2',
        'drops the whole document',
        'platforms.kubernetes',
    ),
    'pipeline name': (change('spec/pipelineInfo/name', 'CIFAR_10'), 'pipelineInfo.name', 'CIFAR_10', 'Rename'),
    'long name': (change('spec/pipelineInfo/name', 'a' * 129), 'pipelineInfo.name', '128 characters', 'Rename'),
    'no root': (change('spec/root'), 'root', 'nothing to run', 'Compile'),
    'pipeline root': (change('spec/defaultPipelineRoot', '/home/me'), 'defaultPipelineRoot', '/home/me', 'minio://'),
    'root without a bucket': (
        change('spec/defaultPipelineRoot', 'minio:///v2'),
        'defaultPipelineRoot',
        'minio://, s3://, gs:// and a bucket',
        'minio://BUCKET',
    ),
    'task name': (change(f'{TASKS}/my_step', {}), 'root.dag.tasks.my_step', 'letters, digits and -', 'Rename'),
    "a name that the server gives to a task's driver": (
        change(f'{TASKS}/Train-driver', make_task('Push', {}, {})),
        'root.dag.tasks.Train-driver',
        'two of one name',
        'Rename',
    ),
    'component name': (change(f'{COMPONENTS}/a.b', {'executorLabel': 'Push_executor'}), 'components.a.b', 'Argo', ''),
    'task without a component': (change(f'{TASKS}/Push/componentRef/name', 'Pull'), 'Push.componentRef', 'Pull', ''),
    'component without an executor': (
        change(f'{COMPONENTS}/Push/executorLabel', 'Pull_executor'),
        'components.Push.executorLabel',
        'Pull_executor',
        'mend the label',
    ),
    'dependency': (change(f'{TASKS}/Push/dependentTasks', ['Evaluate']), 'Push.dependentTasks', 'Evaluate', 'Mend'),
    'cycle': (change(f'{TASKS}/Import/dependentTasks', ['Push']), 'root.dag.tasks', 'circle', 'dependencies'),
    'exit task of nothing': (
        change(f'{TASKS}/Import/triggerPolicy', {'strategy': 'ALL_UPSTREAM_TASKS_COMPLETED'}),
        'Import.dependentTasks',
        'never runs',
        'Name the task',
    ),
    'an output that is not there': (
        change(f'{TASKS}/Train/inputs/artifacts/examples', NO_EXAMPLES),
        'Train.inputs.artifacts.examples',
        "'records' of Import",
        'artifacts: examples',
    ),
    'input without a source': (change(f'{TASKS}/Train/inputs/parameters/epochs'), 'parameters.epochs', 'needs it', ''),
    'parameter of no pipeline': (
        change(f'{TASKS}/Import/inputs/parameters/input_base/componentInputParameter', 'date'),
        'Import.inputs.parameters.input_base',
        "'date'",
        'Mend the name',
    ),
    'runtime parameter of schema 2.0': (
        change(f'{TASKS}/Train/inputs/parameters/epochs/runtimeValue', RUNTIME),
        'Train.inputs.parameters.epochs',
        'constant alone',
        'use_pipeline_spec_2_1',
    ),
    'constant of another type': (
        change(f'{TASKS}/Train/inputs/parameters/epochs/runtimeValue/constant', '3'),
        'Train.inputs.parameters.epochs',
        'NUMBER_INTEGER',
        'Mend',
    ),
    'default of another type': (
        change(f'{PARAMETERS}/data', {'parameterType': 'LIST', 'defaultValue': '/data/cifar10'}),
        'root.inputDefinitions.parameters.data',
        'LIST',
        'default',
    ),
    'resolver': (change(f'{EXECUTORS}/Train_executor', {'resolver': {}}), 'Train_executor', 'no resolvers', 'folder'),
    'no image': (change(f'{CONTAINER}/image'), 'Train_executor.container.image', 'no image', '--image'),
    'latest': (change(f'{CONTAINER}/image', 'r:5000/a:latest'), 'container.image', 'another day', 'digest'),
    'no tag': (change(f'{CONTAINER}/image', 'localhost:5000/a'), 'container.image', 'another day', 'digest'),
    'no command': (change(f'{CONTAINER}/command'), 'Train_executor.container.command', 'are empty', 'Name'),
    'quantity': (
        change(f'{CONTAINER}/resources/resourceMemoryLimit', '8 GB'),
        'resources.resourceMemoryLimit',
        "'8 GB'",
        '8Gi',
    ),
    'a quantity beyond all bounds': (
        change(f'{CONTAINER}/resources/resourceMemoryRequest', f'1e{"9" * 20}'),
        'resources.resourceMemoryRequest',
        'is not a quantity',
        '8Gi',
    ),
    'a request over the limit': (
        change(f'{CONTAINER}/resources/resourceMemoryRequest', '8193Mi'),
        'resources.resourceMemoryRequest',
        '8193Mi is over the limit of 8Gi',
        'Lower it',
    ),
    'a number as text where protobuf wants a number': (
        change(f'{CONTAINER}/resources/memoryLimit', '8Gi'),
        'pipeline spec',
        '8Gi',
        'type',
    ),
    'GPU without a count': (
        change(f'{CONTAINER}/resources/accelerator', {'resourceType': 'nvidia.com/gpu'}),
        'resources.accelerator',
        'silently',
        'resourceCount',
    ),
    'GPU of a model': (
        change(f'{CONTAINER}/resources/accelerator/resourceType', 'NVIDIA_TESLA_T4'),
        'resources.accelerator',
        'no node has it',
        'nvidia.com/gpu',
    ),
    'artifact type': (
        change(
            f'{COMPONENTS}/Train/outputDefinitions/artifacts/model/artifactType', {'instanceSchema': 'type: object'}
        ),
        'components.Train.outputDefinitions.artifacts.model',
        'no title',
        'tfx.Model',
    ),
    'equal containers of components that differ': (
        change(f'{EXECUTORS}/Push_executor', make_pipeline()['deploymentSpec']['executors']['Train_executor']),
        'components.Train',
        'that of Push',
        'differ',
    ),
    'importer of a local path': (
        change(f'{EXECUTORS}/Train_executor', {'importer': OTHER_ROOT}),
        'Train_executor.importer.artifactUri',
        '/home/me/weights',
        'object store',
    ),
    'platform entry of no executor': (
        change(f'{PLATFORM}/Evaluate_executor', {}),
        'platforms.kubernetes.deploymentSpec.executors.Evaluate_executor',
        'drops the entry',
        'Train_executor',
    ),
    'mount of nothing': (
        change(f'{PLATFORM}/Push_executor/pvcMount', [{'mountPath': '/serving'}]),
        'Push_executor.pvcMount[0]',
        'of what',
        'pvcNameParameter',
    ),
    'mount over a mirror': (
        change(f'{PLATFORM}/Push_executor/pvcMount', [{'constant': 'shared', 'mountPath': '/minio/'}]),
        'Push_executor',
        'folder of its own',
        '/data',
    ),
    'toleration': (
        change(f'{PLATFORM}/Train_executor/tolerations', [{'key': 'gpu', 'operator': 'In'}]),
        'Train_executor.tolerations[0]',
        "'In'",
        'NoSchedule',
    ),
    'path that is not mounted': (
        change(f'{PARAMETERS}/data/defaultValue', '/home/me/cifar10'),
        'root.dag.tasks.Import.inputs.parameters.input_base',
        '/home/me/cifar10',
        'volume',
    ),
    'path in JSON': (
        change(f'{PLATFORM}/Push_executor'),
        'root.dag.tasks.Push.inputs.parameters.push_destination',
        '/serving/model',
        'volume',
    ),
    'path in a folder that every pod has for itself': (
        change(f'{PARAMETERS}/data/defaultValue', '/tmp/cifar10'),
        'root.dag.tasks.Import.inputs.parameters.input_base',
        '/tmp/cifar10: nothing is there, and what is written there is lost',
        'volume',
    ),
    'path in a mirror of the object store': (
        change(f'{PARAMETERS}/data/defaultValue', '/minio/cifar10'),
        'input_base',
        '/minio/cifar10: nothing is there',
        'volume',
    ),
    'mount over everything': (
        change(f'{PLATFORM}/Push_executor/pvcMount', [{'constant': 'shared', 'mountPath': '/'}]),
        'Push_executor',
        "not / itself. Received: '/'",
        '/data',
    ),
    'relative path': (change(f'{PARAMETERS}/data/defaultValue', 'runs/data'), 'input_base', 'is relative', 'volume'),
    'file URI': (change(f'{PARAMETERS}/data/defaultValue', 'file:///data'), 'input_base', 'file:///data', 'volume'),
    'path in the environment': (
        change(f'{CONTAINER}/env', [{'name': 'CACHE', 'value': '/home/me/cache'}]),
        'deploymentSpec.executors.Train_executor',
        '/home/me/cache',
        'volume',
    ),
    'path in the home of a user with a name that begins as ours': (
        change(f'{CONTAINER}/env', [{'name': 'CACHE', 'value': '/home/pipeline-me/cache'}]),
        'deploymentSpec.executors.Train_executor',
        '/home/pipeline-me/cache',
        'volume',
    ),
    'no time for a retry': (
        change(f'{TASKS}/Train/retryPolicy/backoffMaxDuration'),
        'Train.retryPolicy',
        'never retries',
        '86400s',
    ),
    'a first wait longer than all attempts may take': (
        change(f'{TASKS}/Train/retryPolicy/backoffDuration', '86400s'),
        'Train.retryPolicy',
        'never retries',
        '86400s',
    ),
    'broken factor': (change(f'{TASKS}/Train/retryPolicy/backoffFactor', 1.5), 'Train.retryPolicy', '1.5', 'whole'),
}

PRE_CACHE_CHECK = {'preCacheCheck': {'command': ['python']}}
SNAPSHOT = {'volumeName': 'old', 'mountPath': '/old', 'dataSource': {'kind': 'VolumeSnapshot', 'name': 'old'}}
CACHE = {'volumeName': 'cache', 'mountPath': '/.cache/hf'}
IMAGE_HOME = re.search(r'HOME=(\S+)', (PROJECT / 'kubeflow/Dockerfile').read_text())[1]
WARNINGS = {
    'pre cache check': (
        change(f'{EXECUTORS}/Import_executor/container/lifecycle', PRE_CACHE_CHECK),
        'Import_executor.container.lifecycle.preCacheCheck',
        'goes on with the result from older data',
    ),
    'a field that 2.17 alone knows': (
        change('platform/platforms/kubernetes/pipelineConfig', {'activeDeadlineSeconds': 60}),
        'platforms.kubernetes.pipelineConfig.activeDeadlineSeconds',
        '2.17 alone',
    ),
    'a field that 2.16 alone knows': (
        change('platform/platforms/kubernetes/pipelineConfig', {'resource_ttl': 60}),
        'platforms.kubernetes.pipelineConfig.resourceTtl',
        '2.16 alone',
    ),
    'no pipeline root': (change('spec/defaultPipelineRoot'), 'defaultPipelineRoot', 'minio://mlpipeline'),
    'no default': (change(f'{PARAMETERS}/data/defaultValue'), 'root.inputDefinitions.parameters.data', 'no default'),
    'unused executor': (
        change(f'{EXECUTORS}/Old_executor', make_executor('old', resourceCpuLimit='1')),
        'deploymentSpec.executors.Old_executor',
        'on no step',
    ),
    'no retries': (change(f'{TASKS}/Train/retryPolicy', {'maxRetryCount': 0}), 'Train.retryPolicy', 'No attempt'),
}


VALID = {
    "a path in our images' home": change(f'{CONTAINER}/env', [{'name': 'KERAS_HOME', 'value': f'{IMAGE_HOME}/.keras'}]),
    'a mount with a slash at its end': change(f'{PLATFORM}/Push_executor/pvcMount/0/mountPath', '/serving/'),
    'a volume from a snapshot': change(f'{PLATFORM}/Train_executor/genericEphemeralVolume', [SNAPSHOT]),
    'a workspace': change('platform/platforms/kubernetes/pipelineConfig', {'workspace': {'size': '10Gi'}}),
    'a mount below a folder of the server': change(f'{PLATFORM}/Train_executor/emptyDirMounts', [CACHE]),
}


def break_package(breakage) -> str:
    spec, platform = json.loads(json.dumps([make_pipeline(), make_platform()]))  # nothing shared, so one place changes
    breakage(spec, platform)
    return write(spec, platform)


def test_a_valid_package_has_no_problem():
    assert lint_package(write(make_pipeline(), make_platform())) == []


@pytest.mark.parametrize('name', VALID)
def test_what_the_server_and_kubernetes_take_is_no_problem(name):
    assert lint_package(break_package(VALID[name])) == []


@pytest.mark.parametrize('name', ERRORS)
def test_a_broken_package_is_refused_with_the_place_and_what_mends_it(name):
    breakage, where, what, mend = ERRORS[name]
    errors = [problem for problem in lint_package(break_package(breakage)) if problem.severity == 'error']
    assert [
        problem
        for problem in errors
        if problem.where.endswith(where) and what in problem.what and mend in problem.mend and problem.mend
    ], errors


@pytest.mark.parametrize('name', WARNINGS)
def test_what_the_server_takes_but_nobody_means_is_a_warning(name):
    breakage, where, what = WARNINGS[name]
    (problem,) = lint_package(break_package(breakage))
    assert problem.severity == 'warning'
    assert problem.where.endswith(where)
    assert what in problem.what


def test_no_resources_on_any_step_are_a_warning():
    spec = make_pipeline()
    for executor in spec['deploymentSpec']['executors'].values():
        del executor['container']['resources']
    (problem,) = lint_package(write(spec, make_platform()))
    assert problem.severity == 'warning'
    assert 'No step asks' in problem.what


def test_an_importer_with_a_condition_is_refused():
    spec = make_pipeline()
    importer = {'artifactUri': {'constant': 's3://models/1'}, 'typeSchema': {'schemaTitle': 'tfx.Examples'}}
    spec['deploymentSpec']['executors']['Import_executor'] = {'importer': importer | {'reimport': True}}
    spec['root']['dag']['tasks']['Import']['triggerPolicy'] = {'condition': 'true'}
    platform = make_platform()
    del platform['platforms']['kubernetes']['deploymentSpec']['executors']['Import_executor']
    problems = lint_package(write(spec, platform))
    assert 'root.dag.tasks.Import.triggerPolicy' in [problem.where for problem in problems]


def test_a_path_is_followed_into_the_dag_of_an_exit_handler():
    spec, platform = make_pipeline(), make_platform()
    text = {'parameterType': 'STRING'}
    tasks = spec['root'].pop('dag')
    spec['components']['Steps'] = {'dag': tasks, 'inputDefinitions': {'parameters': {'data': text}}}
    steps = make_task('Steps', {'data': {'componentInputParameter': 'data'}}, {})
    spec['root']['dag'] = {'tasks': {'Steps': steps}}
    assert lint_package(write(spec, platform)) == []
    spec['root']['inputDefinitions']['parameters']['data']['defaultValue'] = '/home/me/cifar10'
    (problem,) = lint_package(write(spec, platform))
    assert problem.where == 'components.Steps.dag.tasks.Import.inputs.parameters.input_base'


@pytest.mark.parametrize(
    ('documents', 'what'),
    [
        ((make_platform(), make_pipeline()), 'comes first'),
        ((make_pipeline(), make_platform(), make_platform()), 'There are 3 documents'),
        (({'pipelineSpec': make_pipeline()},), 'PipelineJob'),
        (('text',), 'must be a mapping'),
    ],
)
def test_documents_in_a_form_that_cannot_be_read_are_refused(documents, what):
    (problem,) = lint_package(write(*documents))
    assert problem.severity == 'error'
    assert what in problem.what


def list_places(value, place=()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, item in items for found in list_places(item, (*place, key)))]


@pytest.mark.parametrize('odd', [[['x']], float('nan'), {1: 2}])
def test_values_of_a_wrong_kind_are_problems_with_a_place_and_never_a_traceback(odd):
    plain = json.loads(json.dumps([make_pipeline(), make_platform()]))
    problems = []
    for *place, last in list_places(plain)[1:]:
        documents = copy.deepcopy(plain)
        parent = documents
        for key in place:
            parent = parent[key]
        parent[last] = odd
        problems += lint_package(write(*documents))
    assert len(problems) > 100
    assert all(problem.where and problem.mend for problem in problems)


def test_text_that_is_not_yaml_is_wrong_usage():
    with pytest.raises(UsageError, match='not YAML'):
        lint_package('a: [')


def test_the_command_prints_a_line_a_problem_and_exits_by_the_worst(tmp_path, capsys):
    package = tmp_path / 'package.yaml'
    package.write_text(write(make_pipeline(), make_platform()))
    assert main(['lint', str(package)]) == 0
    assert capsys.readouterr().out == ''
    package.write_text(break_package(WARNINGS['no pipeline root'][0]))
    assert main(['lint', str(package)]) == 0
    assert capsys.readouterr().out.startswith('warning: defaultPipelineRoot: ')
    package.write_text(break_package(ERRORS['latest'][0]))
    assert main(['lint', str(package)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith('error: deploymentSpec.executors.Train_executor.container.image: ')


@pytest.mark.parametrize('text', [None, 'a: [', b'\xff\xfe\x00'])
def test_a_file_that_cannot_be_read_is_wrong_usage(tmp_path, capsys, text):
    package = tmp_path / 'package.yaml'
    if text is not None:
        package.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(['lint', str(package)]) == 2
    assert capsys.readouterr().err.count('\n') == 1


@pytest.mark.slow
def test_what_tfx_compiles_by_itself_is_refused_for_its_resolver_and_its_paths(tmp_path):
    import tfx.v1 as tfx
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as runner

    examples = tfx.components.ImportExampleGen(input_base='/home/me/cifar10')
    baseline = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    ).with_id('baseline_resolver')
    pipeline = tfx.dsl.Pipeline('two-nodes', 'minio://mlpipeline/v2', components=[examples, baseline])
    config = runner.KubeflowV2DagRunnerConfig(default_image='tfx:latest', use_pipeline_spec_2_1=True)
    job = runner.KubeflowV2DagRunner(config, str(tmp_path), 'package.yaml').run(pipeline, write_out=True)
    assert job
    text = Path(tmp_path, 'package.yaml').read_text()
    found = {(problem.severity, problem.where): problem.what for problem in lint_package(text)}
    resolvers = [where for (_, where), what in found.items() if 'no resolvers' in what]
    assert resolvers
    assert all('baseline_resolver' in where for where in resolvers)
    executor = 'deploymentSpec.executors.ImportExampleGen_executor.container'
    assert 'another day' in found['error', f'{executor}.image']
    assert 'no new span' in found['warning', f'{executor}.lifecycle.preCacheCheck']
    assert '/home/me/cifar10' in found['error', 'root.dag.tasks.ImportExampleGen.inputs.parameters.input_base']
    names = [where for (_, where), what in found.items() if 'letters, digits' in what and '.tasks.' in where]
    assert names
    assert all('baseline_resolver' in where for where in names)
