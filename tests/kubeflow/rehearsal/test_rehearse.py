"""The rehearsal, on small packages whose containers run Python alone."""

import json
from pathlib import Path

import pytest
from kfp import compiler, dsl

from components.errors import UsageError
from kubeflow.exit_handler import add_exit_handler
from kubeflow.notify import make_message
from kubeflow.package import Package, parse_value, read_package
from kubeflow.rehearsal.driver import NOT_TRIGGERED, Outputs, collect_outputs, order_tasks, resolve_artifact
from kubeflow.rehearsal.launcher import StepError
from kubeflow.rehearsal.rehearse import Rehearsal, SkippedTask, rehearse_package

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
                    ),
                }
            },
        },
        {'Push_executor': {'pvcMount': [{'mountPath': '/data', 'constant': 'claim'}]}},
    )


@pytest.fixture
def rehearse(package, tmp_path):
    """Runs the package; gives what Push saw, and the results of the steps."""

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


def test_a_steps_memory_is_its_childrens_too(package, tmp_path):
    hold = 'import time; held = bytearray(200_000_000); time.sleep(1)'
    code = f'import subprocess, sys; child = subprocess.Popen([sys.executable, "-c", {hold!r}]); {hold}; child.wait()'
    package.spec['deploymentSpec']['executors']['Train_executor'] = make_container(code)
    del package.spec['root']['dag']['tasks']['Push']
    results = []
    Rehearsal(package, tmp_path / 'r', {}, 'run-1', results.append).run({})
    assert 400 < results[0].peak_mb < 600


def test_outputs_lie_where_the_launcher_has_them_and_are_carried_on(rehearse, tmp_path):
    seen, _ = rehearse()
    assert seen['artifact']['uri'] == 'minio://bucket/root/small/run-1/Train/0/model'
    folder = tmp_path / 'r' / 'root' / 'minio' / 'bucket' / 'root' / 'small' / 'run-1' / 'Train' / '0' / 'model'
    assert (folder / 'weights').read_text() == '3'
    assert seen['weights'] == '3'
    assert seen['artifact']['type'] == {'instanceSchema': ''}, 'which Kubeflow forgets'
    assert seen['artifact']['metadata']['blessed'] == 1
    assert seen['artifact']['metadata']['splits'] == {'list': ['a', 'b']}, 'as ML Metadata keeps it'
    assert seen['artifact']['name'].isdigit()


def test_parameters_override_defaults_and_mounts_lead_to_folders_here(rehearse, tmp_path):
    seen, _ = rehearse({'epochs': 7})
    assert seen['weights'] == '7'
    assert seen['values'] == {'serving': f'{tmp_path}/claim/serving'}


def test_a_step_has_the_documents_environment_and_nothing_of_this_machines(rehearse, monkeypatch, tmp_path):
    monkeypatch.setenv('SECRET_OF_THIS_MACHINE', '1')
    seen, _ = rehearse()
    assert seen['greeting'] == 'hello'
    assert set(seen['environment']) - {'LC_CTYPE'} == {'GREETING', 'HOME', 'MIRROR_ROOT', 'PATH'}
    assert Path(seen['folder']).is_relative_to(tmp_path / 'r')


def test_what_the_cluster_has_in_a_secret_is_taken_from_this_shell(rehearse, package, monkeypatch):
    monkeypatch.setenv('TOKEN', 'abc')
    monkeypatch.delenv('PASSWORD', raising=False)
    names = ({'secretKey': 'key', 'envVar': name} for name in ('TOKEN', 'PASSWORD'))
    package.executors['Push_executor']['secretAsEnv'] = [{'secretName': 'store', 'keyToEnv': [*names]}]
    seen, _ = rehearse()
    assert {'TOKEN', 'PASSWORD'} & set(seen['environment']) == {'TOKEN'}


def test_a_step_has_a_file_for_its_logs_as_on_a_server(rehearse, tmp_path):
    rehearse()
    assert [file.is_file() for file in (tmp_path / 'r' / 'root' / 'minio').rglob('executor-logs')] == [True, True]


@pytest.mark.parametrize('command', [[], ['/no/such/command']])
def test_a_command_that_is_not_there_is_one_sentence(package, tmp_path, command):
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
    with pytest.raises(StepError, match=r'Train ended with code 4: error: The disk is full\. \(log: \S+Train\.log\)'):
        Rehearsal(package, tmp_path / 'r', {}, 'run-1', print).run({})


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (lambda dag: dag['tasks']['Train'].update(dependentTasks=['Push']), r'in a circle: .*Push'),
        (lambda dag: dag['tasks']['Train'].update(dependentTasks=['Tune']), r'Train depends on Tune, which'),
        (lambda dag: dag['tasks']['Train'].update(parameterIterator={}), r'Train has a parameterIterator, and'),
        (lambda dag: dag['tasks']['Train'].update(triggerPolicy={'condition': 'x y'}), r'of Train is no CEL: x y'),
        (
            lambda dag: dag['tasks']['Train'].update(triggerPolicy={'condition': 'inputs.parameter_values.rate > 1'}),
            r'of Train fails on its inputs: inputs.parameter_values.rate > 1 ',
        ),
    ],
)
def test_a_package_that_cannot_be_rehearsed_is_one_sentence(package, tmp_path, change, sentence):
    change(package.spec['root']['dag'])
    with pytest.raises(UsageError, match=sentence):
        Rehearsal(package, tmp_path / 'r', {}, 'run-1', print).run({})


def test_an_unknown_mount_is_one_sentence(package, tmp_path):
    with pytest.raises(UsageError, match='mounts nothing at /other; it mounts: /data'):
        Rehearsal(package, tmp_path / 'r', {'/other': tmp_path}, 'run-1', print)


@pytest.mark.parametrize('text', ['inputDefinitions: null', 'inputDefinitions: {parameters: null}'])
def test_a_document_without_its_parameters_is_one_sentence(tmp_path, text):
    file = tmp_path / 'p.yaml'
    root = f'root: {{dag: {{tasks: {{}}}}, {text}}}'
    file.write_text(f'pipelineInfo: {{name: x}}\ncomponents: {{}}\ndeploymentSpec: {{executors: {{}}}}\n{root}')
    with pytest.raises(UsageError, match=r'p\.yaml is no compiled pipeline'):
        read_package(file)


def test_a_parameter_that_only_a_server_gives_is_one_sentence():
    with pytest.raises(UsageError, match='The parameter task is a TASK_CONFIG, which cannot be given as text'):
        parse_value('task', '{}', 'TASK_CONFIG')


def test_tasks_are_ordered_by_what_they_take():
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
    message = make_message('small', 'run-1', 'run-1', (tmp_path / 'told').read_text())
    assert message['state'] == state


def run_tasks(package: Package, folder: Path, **parameters) -> list[str]:
    """Rehearses; gives the tasks in the order of their turns, those that were not triggered as -NAME."""
    results = []
    Rehearsal(package, folder, {}, 'run-1', results.append).run(parameters)
    return [f'-{result.task}' if isinstance(result, SkippedTask) else result.task for result in results]


@pytest.mark.parametrize(
    ('condition', 'tasks'),
    [
        ("inputs.artifacts['model'].artifacts[0].metadata['blessed'] == 1.0", ['Train', 'Push', 'Report']),
        ("inputs.artifacts['model'].artifacts[0].metadata['blessed'] == 0.0", ['Train', '-Push', '-Report']),
    ],
)
def test_a_container_with_a_false_condition_and_what_comes_after_it_do_not_run(package, tmp_path, condition, tasks):
    spec = package.spec
    executors, graph = spec['deploymentSpec']['executors'], spec['root']['dag']['tasks']
    executors['Push_executor'] = executors['Report_executor'] = make_container('')
    spec['components']['Report'] = {'executorLabel': 'Report_executor'}
    graph['Push']['triggerPolicy'] = {'condition': condition}
    graph['Report'] = {'componentRef': {'name': 'Report'}, 'dependentTasks': ['Push']}
    assert run_tasks(package, tmp_path) == tasks


def test_an_exit_task_does_not_run_after_a_task_that_was_not_triggered(package, tmp_path):
    graph = package.spec['root']['dag']['tasks']
    graph['Train']['triggerPolicy'] = {'condition': 'inputs.parameter_values.epochs > 3'}
    graph['Push']['triggerPolicy'] = {'strategy': 'ALL_UPSTREAM_TASKS_COMPLETED'}
    assert run_tasks(package, tmp_path) == ['-Train', '-Push']


def test_a_containers_condition_does_not_see_the_defaults_of_its_component(package, tmp_path):
    graph = package.spec['root']['dag']['tasks']
    del graph['Push']
    graph['Train']['triggerPolicy'] = {'condition': 'has(inputs.parameter_values.epochs)'}
    assert run_tasks(package, tmp_path / 'given') == ['Train']
    del graph['Train']['inputs']
    assert run_tasks(package, tmp_path / 'default') == ['-Train']


@dsl.container_component
def draw(side: str, result: dsl.OutputPath(str)):
    return dsl.ContainerSpec(image='x:1', command=['sh', '-c', 'printf %s "$0" > "$1"'], args=[side, result])


@dsl.container_component
def say(text: str):
    return dsl.ContainerSpec(image='x:1', command=['echo', text])


@dsl.pipeline(name='coin')
def coin(side: str = 'heads', epochs: int = 3, rate: float = 0.5, loud: bool = True):
    drawn = draw(side=side)
    with dsl.If(drawn.outputs['result'] == 'heads'):
        first = draw(side='first')
        with dsl.If(epochs > 3):
            say(text='many')
    with dsl.Elif(rate > 1):
        second = draw(side='second')
    with dsl.Else():
        third = draw(side='third')
    say(text=dsl.OneOf(first.outputs['result'], second.outputs['result'], third.outputs['result']))
    with dsl.If(loud == True):  # noqa: E712, which kfp overloads
        say(text='loud')


@pytest.fixture(scope='module')
def coin_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('coin') / 'coin.yaml'
    compiler.Compiler().compile(coin, str(path))
    return path


@pytest.mark.parametrize(
    ('parameters', 'run', 'said'),
    [
        ({}, {'draw', 'draw-2', 'say-2', 'say-3'}, 'first'),
        ({'epochs': 4}, {'draw', 'draw-2', 'say', 'say-2', 'say-3'}, 'first'),
        ({'side': 'tails', 'rate': 1.5, 'loud': False}, {'draw', 'draw-3', 'say-2'}, 'second'),
        ({'side': 'tails'}, {'draw', 'draw-4', 'say-2', 'say-3'}, 'third'),
    ],
)
def test_branches_that_kfp_has_compiled_run_by_their_conditions(coin_file, tmp_path, parameters, run, said):
    tasks = run_tasks(read_package(coin_file), tmp_path, **parameters)
    assert {task for task in tasks if not task.startswith('-')} == run
    assert (tmp_path / 'logs' / 'say-2.log').read_text() == f'{said}\n', 'dsl.OneOf gives that of the branch that ran'


def test_a_dag_gives_the_artifact_of_the_branch_that_ran():
    choices = [{'producerSubtask': name, 'outputArtifactKey': 'model'} for name in ('a', 'b')]
    done = {'a': NOT_TRIGGERED, 'b': Outputs({'model': {'uri': 'minio://b'}}, {})}
    given = collect_outputs({'outputs': {'artifacts': {'best': {'artifactSelectors': choices}}}}, done)
    assert given.artifacts == {'best': {'uri': 'minio://b'}}


def test_an_output_that_no_branch_gave_is_one_sentence():
    spec = {'taskOutputArtifact': {'producerTask': 'branches', 'outputArtifactKey': 'best'}}
    with pytest.raises(UsageError, match='branches gave no best, which a task after it takes'):
        resolve_artifact(spec, {}, {'branches': Outputs({}, {})})


def test_the_command_says_what_was_not_triggered_and_counts_what_ran(coin_file, tmp_path, capsys):
    rehearse_package(coin_file, tmp_path, [], ['loud=false'])
    lines = capsys.readouterr().out.splitlines()
    assert "condition-6       not triggered: inputs.parameter_values['pipelinechannel--loud'] == true is false" in lines
    assert lines[-1].startswith('3 steps ended well')


@pytest.mark.parametrize(
    ('kind', 'script', 'sentence'),
    [
        ('STRING', ':', 'draw has not written its output parameter result'),
        ('NUMBER_INTEGER', 'echo heads > "$1"', r'result takes a NUMBER_INTEGER, as JSON. Received: .heads'),
    ],
)
def test_an_output_parameter_that_is_not_there_or_of_another_type_fails_its_step(
    coin_file, tmp_path, kind, script, sentence
):
    package = read_package(coin_file)
    package.spec['components']['comp-draw']['outputDefinitions']['parameters']['result']['parameterType'] = kind
    package.spec['deploymentSpec']['executors']['exec-draw']['container']['command'][2] = script
    with pytest.raises(StepError, match=sentence):
        run_tasks(package, tmp_path)
