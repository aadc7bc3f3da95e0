"""The rehearsal, on small packages whose containers run only Python or a shell."""

import contextlib
import json
import re
from pathlib import Path

import pytest
from kfp import compiler, dsl

from components.errors import UsageError
from kubeflow.exit_handler import add_exit_handler
from kubeflow.notify import make_message
from kubeflow.package import Package, parse_value, read_package
from kubeflow.rehearsal.driver import Outputs, collect_outputs, order_tasks, resolve_artifact
from kubeflow.rehearsal.launcher import StepError
from kubeflow.rehearsal.rehearse import Rehearsal, ReusedTask, SkippedTask, rehearse_package

UUID = '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'

WRITE = """
import json, os, sys
given = json.loads(sys.argv[1])
(artifact,) = given['outputs']['artifacts']['model']['artifacts']
path = os.environ['MIRROR_ROOT'] + '/minio/' + artifact['uri'].removeprefix('minio://')
os.makedirs(path)
open(path + '/weights', 'w').write(sys.argv[2])
artifact['metadata'] = {'blessed': 1, 'splits': ['a', 'b']}
json.dump({'artifacts': {'model': {'artifacts': [artifact]}}}, open(given['outputs']['outputFile'], 'w'))
"""
READ = """
import json, os, sys
given = json.loads(sys.argv[1])
(artifact,) = given['inputs']['artifacts']['model']['artifacts']
json.dump({'artifact': artifact, 'weights': open(sys.argv[2] + '/weights').read(), 'values': given['inputs']
    ['parameterValues'], 'environment': sorted(os.environ), 'greeting': os.environ['GREETING'],
    'folder': os.getcwd()}, open(sys.argv[3] + '/seen.json', 'w'))
"""


def make_container(code: str, *arguments: str, **environment: str) -> dict:
    env = [{'name': name, 'value': value} for name, value in environment.items()]
    return {'container': {'image': 'x:1', 'command': ['python', '-c', code], 'args': ['{{$}}', *arguments], 'env': env}}


@pytest.fixture
def package() -> Package:
    """Train writes a model, Push reads it and a mounted folder."""
    parameters = {'epochs': {'parameterType': 'NUMBER_INTEGER', 'defaultValue': 3.0}}
    paths = {'serving': {'parameterType': 'STRING'}}
    kind = {'artifactType': {'schemaTitle': 'tfx.Model'}}
    return Package(
        {
            'pipelineInfo': {'name': 'small'},
            'defaultPipelineRoot': 'minio://bucket/root',
            'root': {
                'inputDefinitions': {'parameters': parameters},
                'dag': {
                    'tasks': {
                        'Push': {
                            'componentRef': {'name': 'Push'},
                            'inputs': {
                                'parameters': {'serving': {'runtimeValue': {'constant': '/data/serving'}}},
                                'artifacts': {
                                    'model': {
                                        'taskOutputArtifact': {'producerTask': 'Train', 'outputArtifactKey': 'model'}
                                    }
                                },
                            },
                        },
                        'Train': {
                            'componentRef': {'name': 'Train'},
                            'inputs': {'parameters': {'epochs': {'componentInputParameter': 'epochs'}}},
                        },
                    }
                },
            },
            'components': {
                'Train': {
                    'executorLabel': 'Train_executor',
                    'inputDefinitions': {'parameters': parameters},
                    'outputDefinitions': {'artifacts': {'model': kind}},
                },
                'Push': {
                    'executorLabel': 'Push_executor',
                    'inputDefinitions': {'parameters': paths, 'artifacts': {'model': kind}},
                },
            },
            'deploymentSpec': {
                'executors': {
                    'Train_executor': make_container(WRITE, "{{$.inputs.parameters['epochs']}}"),
                    'Push_executor': make_container(
                        READ,
                        "{{$.inputs.artifacts['model'].path}}",
                        "{{$.inputs.parameters['serving']}}",
                        GREETING='hello',
                        PROMISED_GPUS='1',
                    ),
                }
            },
        },
        {'Push_executor': {'pvcMount': [{'mountPath': '/data', 'constant': 'claim'}]}},
    )


@pytest.fixture
def rehearse(package, tmp_path):
    """Runs the package; returns what Push saw, and the results of the steps."""

    def run(parameters: dict | None = None) -> tuple[dict, list]:
        results = []
        (tmp_path / 'claim' / 'serving').mkdir(parents=True)
        rehearsal = Rehearsal(package, tmp_path / 'r', {'/data': tmp_path / 'claim'}, 'run-1', results.append)
        rehearsal.run(parameters or {})
        return json.loads((tmp_path / 'claim' / 'serving' / 'seen.json').read_text()), results

    return run


def test_steps_run_in_the_order_of_their_dependencies_and_are_measured(rehearse):
    _, results = rehearse()
    assert [result.task for result in results] == ['Train', 'Push']
    assert all(result.seconds > 0 and result.peak_mb > 0 for result in results)


def test_the_memory_of_a_step_includes_its_child_processes(package, tmp_path):
    hold = 'import time; held = bytearray(200_000_000); time.sleep(1)'
    code = f'import subprocess, sys; child = subprocess.Popen([sys.executable, "-c", {hold!r}]); {hold}; child.wait()'
    package.spec['deploymentSpec']['executors']['Train_executor'] = make_container(code)
    del package.spec['root']['dag']['tasks']['Push']
    results = []
    Rehearsal(package, tmp_path / 'r', {}, 'run-1', results.append).run({})
    assert 400 < results[0].peak_mb < 600


def test_outputs_are_where_the_launcher_puts_them_and_reach_the_next_step(rehearse, tmp_path):
    seen, _ = rehearse()
    root, _, path = seen['artifact']['uri'].partition('://')
    assert re.fullmatch(rf'bucket/root/small/run-1/Train/{UUID}/model', path)
    folder = tmp_path / 'r' / 'root' / root / path
    assert (folder / 'weights').read_text() == '3'
    assert seen['weights'] == '3'
    assert seen['artifact']['type'] == {'instanceSchema': ''}, 'Kubeflow loses the type'
    assert seen['artifact']['metadata']['blessed'] == 1
    assert seen['artifact']['metadata']['splits'] == {'list': ['a', 'b']}, 'as ML Metadata gives it back'
    assert seen['artifact']['name'].isdigit()


def test_parameters_override_defaults_and_mounts_become_folders_of_this_machine(rehearse, tmp_path):
    seen, _ = rehearse({'epochs': 7})
    assert seen['weights'] == '7'
    assert seen['values'] == {'serving': f'{tmp_path}/claim/serving'}


POD_VARIABLES = {
    *('ARGO_CONTAINER_NAME', 'ARGO_DEADLINE', 'ARGO_INCLUDE_SCRIPT_OUTPUT', 'ARGO_NODE_ID', 'ARGO_PROGRESS_FILE'),
    *('ARGO_PROGRESS_FILE_TICK_DURATION', 'ARGO_PROGRESS_PATCH_TICK_DURATION', 'KFP_POD_NAME', 'KFP_POD_UID'),
}
"""Of a recorded pod, see test_recorded_inputs.py; KFP_RETRY_INDEX is only in the pods of steps with a retry policy."""


def test_a_step_has_the_environment_of_the_document_and_not_that_of_this_machine(rehearse, monkeypatch, tmp_path):
    monkeypatch.setenv('SECRET_OF_THIS_MACHINE', '1')
    seen, _ = rehearse()
    assert seen['greeting'] == 'hello'
    names = {name for name in seen['environment'] if not name.startswith('KUBERNETES_')}
    assert names - {'LC_CTYPE'} == {'GREETING', 'HOME', 'MIRROR_ROOT', 'PATH', 'TMPDIR', *POD_VARIABLES}
    assert {'KUBERNETES_SERVICE_HOST', 'KUBERNETES_SERVICE_PORT'} <= set(seen['environment'])
    assert Path(seen['folder']).is_relative_to(tmp_path / 'r')


def test_variables_that_the_cluster_has_in_a_secret_come_from_this_shell(rehearse, package, monkeypatch):
    monkeypatch.setenv('TOKEN', 'abc')
    monkeypatch.delenv('PASSWORD', raising=False)
    names = ({'secretKey': 'key', 'envVar': name} for name in ('TOKEN', 'PASSWORD'))
    package.executors['Push_executor']['secretAsEnv'] = [{'secretName': 'store', 'keyToEnv': [*names]}]
    seen, _ = rehearse()
    assert {'TOKEN', 'PASSWORD'} & set(seen['environment']) == {'TOKEN'}


def test_a_step_has_a_file_for_its_logs_as_on_a_server(rehearse, tmp_path):
    rehearse()
    assert [file.is_file() for file in (tmp_path / 'r' / 'root' / 'minio').rglob('executor-logs-0')] == [True, True]


@pytest.mark.parametrize('command', [[], ['/no/such/command']])
def test_a_command_that_does_not_exist_is_one_sentence(package, tmp_path, command):
    package.spec['deploymentSpec']['executors']['Train_executor'] = {'container': {'image': 'x:1', 'command': command}}
    with pytest.raises(StepError, match='Train cannot be started: '):
        Rehearsal(package, tmp_path / 'r', {}, 'run-1', print).run({})


def test_a_root_that_is_a_file_is_one_sentence(coin_file, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UsageError, match=r'--root takes a folder that exists or can be made: .*File exists'):
        rehearse_package(coin_file, tmp_path / 'file', [], [])


def test_a_step_that_fails_ends_the_rehearsal_with_its_sentence(package, tmp_path):
    code = 'import sys; print("noise"); print("error: The disk is full.", file=sys.stderr); print(1); sys.exit(4)'
    package.spec['deploymentSpec']['executors']['Train_executor'] = make_container(code)
    with pytest.raises(
        StepError,
        match=r'Train ended with code 4 \(its pod ends with code 1\): error: The disk is full\. \(log: \S+Train\.log\)',
    ):
        Rehearsal(package, tmp_path / 'r', {}, 'run-1', print).run({})


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (lambda dag: dag['tasks']['Train'].update(dependentTasks=['Push']), r'in a circle: .*Push'),
        (lambda dag: dag['tasks']['Train'].update(dependentTasks=['Tune']), r'Train depends on Tune, which'),
        (lambda dag: dag['tasks']['Train'].update(parameterIterator={}), r'\n  Train has a parameterIterator$'),
    ],
)
def test_a_package_that_cannot_be_rehearsed_is_one_sentence(package, tmp_path, change, sentence):
    change(package.spec['root']['dag'])
    with pytest.raises(UsageError, match=sentence):
        Rehearsal(package, tmp_path / 'r', {}, 'run-1', print).run({})


def test_an_unknown_mount_is_one_sentence(package, tmp_path):
    with pytest.raises(UsageError, match='does not mount a volume at /other; it mounts: /data'):
        Rehearsal(package, tmp_path / 'r', {'/other': tmp_path}, 'run-1', print)


@pytest.mark.parametrize('text', ['inputDefinitions: null', 'inputDefinitions: {parameters: null}'])
def test_a_document_without_its_parameters_is_one_sentence(tmp_path, text):
    file = tmp_path / 'p.yaml'
    root = f'root: {{dag: {{tasks: {{}}}}, {text}}}'
    file.write_text(f'pipelineInfo: {{name: x}}\ncomponents: {{}}\ndeploymentSpec: {{executors: {{}}}}\n{root}')
    with pytest.raises(UsageError, match=r'p\.yaml is not a compiled pipeline'):
        read_package(file)


def test_a_parameter_that_only_a_server_can_give_is_one_sentence():
    with pytest.raises(UsageError, match='The parameter task is a TASK_CONFIG, which cannot be given as text'):
        parse_value('task', '{}', 'TASK_CONFIG')


def test_tasks_are_ordered_by_their_dependencies():
    tasks = {'b': {'dependentTasks': ['a']}, 'c': {'dependentTasks': ['b']}, 'a': {}}
    assert list(order_tasks(tasks)) == ['a', 'b', 'c']


@pytest.mark.parametrize(('is_broken', 'state'), [(False, 'SUCCEEDED'), (True, 'FAILED')])
def test_the_exit_handler_reports_how_the_steps_ended(package, tmp_path, is_broken, state):
    if is_broken:
        package.spec['deploymentSpec']['executors']['Train_executor'] = make_container('raise SystemExit(1)')
    spec = add_exit_handler(package.spec, 'x:1', 'http://unused')
    container = spec['deploymentSpec']['executors']['notify_executor']['container']
    container['command'] = ['python', '-c', f'import sys; open({str(tmp_path / "told")!r}, "w").write(sys.argv[-1])']
    (tmp_path / 'claim' / 'serving').mkdir(parents=True)
    results = []
    mounts = {'/data': tmp_path / 'claim'}
    rehearsal = Rehearsal(package._replace(spec=spec), tmp_path / 'r', mounts, 'run-1', results.append)
    if is_broken:
        with pytest.raises(StepError, match='Train ended with code 1'):
            rehearsal.run({'epochs': 1})
    else:
        rehearsal.run({'epochs': 1})
    assert [result.task for result in results] == (['Push', 'notify'] if is_broken else ['Train', 'Push', 'notify'])
    status = (tmp_path / 'told').read_text()
    assert make_message('small', 'run-1', 'run-1', status)['state'] == state
    assert re.fullmatch('small-[0-9a-f]{5}', json.loads(status)['pipelineJobResourceName']), "the workflow's name"


FAIL_ONCE = (
    """
import json, os, pathlib, sys
given = json.loads(sys.argv[1])
folder = pathlib.Path(given['outputs']['outputFile']).parent
beside = folder.parent / 'checkpoints'
if os.environ['KFP_RETRY_INDEX'] == '0':
    beside.mkdir()
    (folder / 'model').mkdir()
    pathlib.Path(sys.argv[3], 'kept').touch()
    sys.exit(2)
assert not beside.exists() and not (folder / 'model').exists(), 'it died with the pod'
assert pathlib.Path(sys.argv[3], 'kept').exists(), 'a volume keeps it'
"""
    + WRITE
)


def test_a_failed_step_is_started_again_as_its_task_says_and_without_what_the_pod_wrote(package, tmp_path):
    step = make_container(FAIL_ONCE, '3', '/data')
    package.spec['deploymentSpec']['executors']['Train_executor'] = step
    package.executors['Train_executor'] = package.executors['Push_executor']
    package.spec['root']['dag']['tasks']['Train']['retryPolicy'] = {'maxRetryCount': 2}
    (tmp_path / 'claim' / 'serving').mkdir(parents=True)
    results = []
    Rehearsal(package, tmp_path / 'r', {'/data': tmp_path / 'claim'}, 'run-1', results.append).run({})
    assert [type(result).__name__ for result in results] == ['FailedAttempt', 'StepResult', 'StepResult']
    sentence = 'Train             attempt 1 of 3 failed: Train ended with code 2 (its pod ends with code 1): '
    assert str(results[0]).startswith(sentence)
    logs = (tmp_path / 'r' / 'root' / 'minio').rglob('Train/*/executor-logs-*')
    assert sorted(log.name for log in logs) == ['executor-logs-0', 'executor-logs-1']


def test_a_step_that_fails_in_every_attempt_fails_with_the_last_reason(package, tmp_path):
    package.spec['deploymentSpec']['executors']['Train_executor'] = make_container('import os; os.kill(os.getpid(), 9)')
    package.spec['root']['dag']['tasks']['Train']['retryPolicy'] = {'maxRetryCount': 1}
    results = []
    with pytest.raises(StepError, match=r'Train was killed by signal 9 .* \(log: \S+Train-1\.log\)'):
        Rehearsal(package, tmp_path / 'r', {}, 'run-1', results.append).run({})
    assert [type(result).__name__ for result in results] == ['FailedAttempt', 'SkippedTask']


@pytest.mark.parametrize(
    ('change', 'reused'),
    [
        (lambda spec, parameters: None, ['Train']),
        (lambda spec, parameters: parameters.update(epochs=4), []),
        (lambda spec, parameters: get_train(spec).update(image='x:2'), []),
        (lambda spec, parameters: get_train(spec)['args'].append('more'), []),
        (lambda spec, parameters: spec['root']['dag']['tasks']['Train'].pop('cachingOptions', None), []),
    ],
)
def test_a_second_rehearsal_reuses_what_a_servers_cache_would(package, tmp_path, change, reused):
    package.spec['root']['dag']['tasks']['Train']['cachingOptions'] = {'enableCache': True}
    (tmp_path / 'claim' / 'serving').mkdir(parents=True)
    parameters, seen = {}, []
    for run in ('run-1', 'run-2'):
        results = []
        Rehearsal(package, tmp_path / 'r', {'/data': tmp_path / 'claim'}, run, results.append).run(parameters)
        seen.append(json.loads((tmp_path / 'claim' / 'serving' / 'seen.json').read_text())['artifact'])
        change(package.spec, parameters)
    assert [result.task for result in results if isinstance(result, ReusedTask)] == reused
    first, second = seen
    assert (first == second) == bool(reused), 'the artifact of the first run'
    assert first['name'] != second['name'] or reused


def get_train(spec):
    return spec['deploymentSpec']['executors']['Train_executor']['container']


def test_a_damaged_file_of_the_cache_is_one_sentence(package, tmp_path):
    (tmp_path / 'server.json').write_text('{')
    with pytest.raises(UsageError, match=r'server\.json cannot be read .*; remove it'):
        Rehearsal(package, tmp_path, {}, 'run-1', print)


def run_tasks(package: Package, folder: Path, **parameters) -> list[str]:
    """Rehearses a package; returns the tasks in the order of their turns, those that were skipped as -NAME."""
    results = []
    with contextlib.suppress(StepError):
        Rehearsal(package, folder, {}, 'run-1', results.append).run(parameters)
    return [f'-{result.task}' if isinstance(result, SkippedTask) else result.task for result in results]


def test_what_comes_after_a_failed_task_is_skipped_and_an_exit_task_runs_only_after_a_task_that_ran(package, tmp_path):
    executors, graph = package.spec['deploymentSpec']['executors'], package.spec['root']['dag']['tasks']
    executors['Train_executor'] = make_container('raise SystemExit(1)')
    executors['Report_executor'] = make_container('')
    package.spec['components']['Report'] = {'executorLabel': 'Report_executor'}
    for name, source in (('ReportTrain', 'Train'), ('ReportPush', 'Push')):
        policy = {'strategy': 'ALL_UPSTREAM_TASKS_COMPLETED'}
        graph[name] = {'componentRef': {'name': 'Report'}, 'dependentTasks': [source], 'triggerPolicy': policy}
    assert sorted(run_tasks(package, tmp_path)) == ['-Push', '-ReportPush', 'ReportTrain']


def test_a_skipped_task_says_after_which_task_it_comes():
    assert str(SkippedTask('Push', 'it comes after Train')) == 'Push              not triggered: it comes after Train'


@dsl.container_component
def draw(side: str, result: dsl.OutputPath(str)):
    return dsl.ContainerSpec(image='x:1', command=['sh', '-c', 'printf %s "$0" > "$1"'], args=[side, result])


@dsl.container_component
def say(text: str):
    return dsl.ContainerSpec(image='x:1', command=['echo', text])


@dsl.pipeline
def toss(side: str) -> str:
    return draw(side=side).outputs['result']


@dsl.pipeline(name='coin')
def coin(side: str = 'heads'):
    say(text=toss(side=side).output)


@dsl.pipeline(name='bet')
def bet(side: str = 'heads'):
    drawn = draw(side=side)
    with dsl.If(drawn.outputs['result'] == 'heads'):
        say(text='won')
    with dsl.Else(), dsl.ParallelFor(['a', 'b']) as text:
        say(text=text)


def compile_with_kfp(pipeline, folder: Path) -> Path:
    path = folder / f'{pipeline.name}.yaml'
    compiler.Compiler().compile(pipeline, str(path))
    return path


@pytest.fixture(scope='module')
def coin_file(tmp_path_factory) -> Path:
    """A package that kfp has compiled: a graph of tasks within the graph, whose output a task of the root reads."""
    return compile_with_kfp(coin, tmp_path_factory.mktemp('coin'))


def test_the_output_of_a_graph_that_kfp_has_compiled_reaches_the_next_task(coin_file, tmp_path):
    assert run_tasks(read_package(coin_file), tmp_path, side='tails') == ['draw', 'say']
    assert (tmp_path / 'logs' / 'say.log').read_text() == 'tails\n'


def test_a_package_with_conditions_is_refused_with_each_task_and_its_condition_before_any_step_runs(tmp_path, capsys):
    path = compile_with_kfp(bet, tmp_path)
    with pytest.raises(UsageError) as refusal:
        rehearse_package(path, tmp_path / 'r', [], [])
    condition = "inputs.parameter_values['pipelinechannel--draw-result'] == 'heads'"
    first, *lines = str(refusal.value).splitlines()
    assert first.startswith('The package is not rehearsed: ')
    assert f'  condition-2 has the condition {condition}' in lines
    assert f'  condition-3 has the condition !({condition})' in lines
    assert 'for-loop-' in str(refusal.value), 'a task of a graph within the graph'
    assert 'has a parameterIterator' in str(refusal.value)
    assert not (tmp_path / 'r').exists()
    assert capsys.readouterr().out == ''


def test_an_importer_is_refused_before_any_step_runs(package, tmp_path):
    package.spec['deploymentSpec']['executors']['Push_executor'] = {'importer': {}}
    with pytest.raises(UsageError, match='Push does not run a container'):
        Rehearsal(package, tmp_path / 'r', {}, 'run-1', print)


def test_an_artifact_that_its_task_does_not_have_is_one_sentence():
    spec = {'taskOutputArtifact': {'producerTask': 'Tune', 'outputArtifactKey': 'best'}}
    with pytest.raises(UsageError, match='Tune has no output best, which a task after it reads'):
        resolve_artifact(spec, {}, {'Tune': Outputs({}, {})})


def test_a_graph_passes_on_the_artifact_of_its_task():
    outputs = {'artifacts': {'best': {'artifactSelectors': [{'producerSubtask': 'b', 'outputArtifactKey': 'model'}]}}}
    given = collect_outputs({'outputs': outputs}, {'b': Outputs({'model': {'uri': 'minio://b'}}, {})})
    assert given.artifacts == {'best': {'uri': 'minio://b'}}


def test_the_command_counts_the_steps(coin_file, tmp_path, capsys):
    assert rehearse_package(coin_file, tmp_path, [], ['side=tails']) == 0
    first, *steps, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf'Rehearsal {UUID} of coin in {tmp_path}', first)
    assert [line.split()[0] for line in steps] == ['draw', 'say']
    assert last == "2 steps succeeded; set each step's memory from the figures above"


@pytest.mark.parametrize(
    ('kind', 'script', 'sentence'),
    [
        ('STRING', ':', 'draw has not written its output parameter result'),
        ('NUMBER_INTEGER', 'echo heads > "$1"', r'result takes a NUMBER_INTEGER, as JSON. Received: .heads'),
    ],
)
def test_an_output_parameter_that_is_missing_or_of_a_wrong_type_fails_its_step(
    coin_file, tmp_path, kind, script, sentence
):
    package = read_package(coin_file)
    package.spec['components']['comp-draw']['outputDefinitions']['parameters']['result']['parameterType'] = kind
    package.spec['deploymentSpec']['executors']['exec-draw']['container']['command'][2] = script
    with pytest.raises(StepError, match=sentence):
        Rehearsal(package, tmp_path, {}, 'run-1', print).run({})
