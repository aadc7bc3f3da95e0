"""The rules for components, tasks, dependencies and retries."""

from kubeflow.lint.linter import lint_package
from tests.kubeflow.lint.small_package import (
    COMPONENTS,
    EXECUTORS,
    TASKS,
    assert_error,
    assert_warning,
    change,
    make_pipeline,
    make_platform,
    make_task,
    write,
)

RETRIES = {'maxRetryCount': 2, 'backoffDuration': '30s', 'backoffFactor': 2, 'backoffMaxDuration': '86400s'}


def change_retries(**fields):
    """Gives a task the policy RETRIES with fields changed, or without those that are None."""
    policy = {name: value for name, value in {**RETRIES, **fields}.items() if value is not None}
    return change(f'{TASKS}/Train/retryPolicy', policy)


ERRORS = {
    'task name with an underscore': (
        change(f'{TASKS}/my_step', {}),
        'root.dag.tasks.my_step',
        'letters, digits and -',
        'Rename',
    ),
    "a name that the server gives to a task's driver": (
        change(f'{TASKS}/Train-driver', make_task('Push', {}, {})),
        'root.dag.tasks.Train-driver',
        'two tasks of the same name',
        'Rename',
    ),
    'component name with a dot': (
        change(f'{COMPONENTS}/a.b', {'executorLabel': 'Push_executor'}),
        'components.a.b',
        'Argo',
        '',
    ),
    'task without a component': (change(f'{TASKS}/Push/componentRef/name', 'Pull'), 'Push.componentRef', 'Pull', ''),
    'component without an executor': (
        change(f'{COMPONENTS}/Push/executorLabel', 'Pull_executor'),
        'components.Push.executorLabel',
        'Pull_executor',
        'correct the label',
    ),
    'dependency on a task that does not exist': (
        change(f'{TASKS}/Push/dependentTasks', ['Evaluate']),
        'Push.dependentTasks',
        'Evaluate',
        'Correct the name',
    ),
    'dependencies in a circle': (
        change(f'{TASKS}/Import/dependentTasks', ['Push']),
        'root.dag.tasks',
        'circle',
        'dependencies',
    ),
    'exit task that waits for no task': (
        change(f'{TASKS}/Import/triggerPolicy', {'strategy': 'ALL_UPSTREAM_TASKS_COMPLETED'}),
        'Import.dependentTasks',
        'never runs',
        'Name the task',
    ),
    'artifact type without a title': (
        change(
            f'{COMPONENTS}/Train/outputDefinitions/artifacts/model/artifactType', {'instanceSchema': 'type: object'}
        ),
        'components.Train.outputDefinitions.artifacts.model',
        'no title',
        'tfx.Model',
    ),
    'equal containers of components with different inputs': (
        change(f'{EXECUTORS}/Push_executor', make_pipeline()['deploymentSpec']['executors']['Train_executor']),
        'components.Train',
        'the container of Push',
        'differ',
    ),
    'retry policy without backoffMaxDuration': (
        change_retries(backoffMaxDuration=None),
        'Train.retryPolicy',
        'never retries',
        '86400s',
    ),
    'wait before the first retry that is as long as backoffMaxDuration': (
        change_retries(backoffDuration='86400s'),
        'Train.retryPolicy',
        'never retries',
        '86400s',
    ),
    'condition that is no expression': (
        change(f'{TASKS}/Train/triggerPolicy', {'condition': "inputs.parameter_values['epochs'] = 3"}),
        'Train.triggerPolicy.condition',
        "has '= 3' where",
        'dsl.If',
    ),
    'fractional backoff factor': (
        change_retries(backoffFactor=1.5),
        'Train.retryPolicy',
        '1.5',
        'whole',
    ),
}

WARNINGS = {
    'retry policy without retries': (
        change(f'{TASKS}/Train/retryPolicy', {'maxRetryCount': 0}),
        'Train.retryPolicy',
        'not retried',
    ),
    'retries, which server 2.17 does not make after a failure': (
        change_retries(),
        'file',
        'Server 2.17 as it is shipped starts none of the 1 steps with a retryPolicy again',
    ),
}


def test_a_broken_package_is_refused_with_the_place_and_what_mends_it(error_case):
    assert_error(*error_case)


def test_what_the_server_takes_but_hardly_anyone_means_is_a_warning(warning_case):
    assert_warning(*warning_case)


def test_an_importer_with_a_condition_is_refused():
    spec = make_pipeline()
    importer = {'artifactUri': {'constant': 's3://models/1'}, 'typeSchema': {'schemaTitle': 'tfx.Examples'}}
    spec['deploymentSpec']['executors']['Import_executor'] = {'importer': importer | {'reimport': True}}
    spec['root']['dag']['tasks']['Import']['triggerPolicy'] = {'condition': 'true'}
    platform = make_platform()
    del platform['platforms']['kubernetes']['deploymentSpec']['executors']['Import_executor']
    problems = lint_package(write(spec, platform))
    assert 'root.dag.tasks.Import.triggerPolicy' in [problem.where for problem in problems]
