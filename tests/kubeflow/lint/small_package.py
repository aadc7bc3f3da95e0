"""A small valid package, ways to break it, and assertions about what the linter says."""

import copy
import json

import yaml

from kubeflow.lint.linter import lint_package

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
    """Makes a function that sets a value in the documents (spec, platform), or removes it if the value is None.

    path: begins with the document's name, such as 'spec/root/dag' or 'platform/platforms'.
    """
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


def break_package(breakage) -> str:
    # Through JSON, so that no object is in two places of the documents and a breakage changes only one place.
    spec, platform = json.loads(json.dumps([make_pipeline(), make_platform()]))
    breakage(spec, platform)
    return write(spec, platform)


def assert_error(breakage, where: str, what: str, mend: str) -> None:
    """Breaks the package, and expects an error at a place that says what is wrong and what mends it."""
    errors = [problem for problem in lint_package(break_package(breakage)) if problem.severity == 'error']
    assert [
        problem
        for problem in errors
        if problem.where.endswith(where) and what in problem.what and mend in problem.mend and problem.mend
    ], errors


def assert_warning(breakage, where: str, what: str) -> None:
    """Breaks the package, and expects a warning at a place, and nothing else."""
    (problem,) = lint_package(break_package(breakage))
    assert problem.severity == 'warning'
    assert problem.where.endswith(where)
    assert what in problem.what
