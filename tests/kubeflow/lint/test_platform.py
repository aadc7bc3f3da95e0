"""The rules for the kubernetes platform spec."""

from kubeflow.lint.linter import lint_package
from tests.kubeflow.lint.small_package import PLATFORM, assert_error, assert_warning, break_package, change

CACHE = {'volumeName': 'cache', 'mountPath': '/.cache/hf'}

ERRORS = {
    'platform entry without an executor': (
        change(f'{PLATFORM}/Evaluate_executor', {}),
        'platforms.kubernetes.deploymentSpec.executors.Evaluate_executor',
        'drops the entry',
        'Train_executor',
    ),
    'mount that names no volume': (
        change(f'{PLATFORM}/Push_executor/pvcMount', [{'mountPath': '/serving'}]),
        'Push_executor.pvcMount[0]',
        'does not say which volume',
        'pvcNameParameter',
    ),
    'mount over a folder of the server': (
        change(f'{PLATFORM}/Push_executor/pvcMount', [{'constant': 'shared', 'mountPath': '/minio/'}]),
        'Push_executor',
        'folder of its own',
        '/data',
    ),
    'mount at the root folder': (
        change(f'{PLATFORM}/Push_executor/pvcMount', [{'constant': 'shared', 'mountPath': '/'}]),
        'Push_executor',
        "not / itself. Received: '/'",
        '/data',
    ),
    'toleration with an operator that does not exist': (
        change(f'{PLATFORM}/Train_executor/tolerations', [{'key': 'gpu', 'operator': 'In'}]),
        'Train_executor.tolerations[0]',
        "'In'",
        'NoSchedule',
    ),
    'pull policy that does not exist': (
        change(f'{PLATFORM}/Train_executor/imagePullPolicy', 'Sometimes'),
        'Train_executor',
        "'Sometimes'",
        'IfNotPresent',
    ),
    'deadline in the past': (
        change(f'{PLATFORM}/Train_executor/activeDeadlineSeconds', '-1'),
        'Train_executor',
        'ignores activeDeadlineSeconds -1',
        'positive number',
    ),
    'variable without a secret': (
        change(f'{PLATFORM}/Train_executor/secretAsEnv/0/secretNameParameter', {}),
        'Train_executor.secretAsEnv[0]',
        'does not say which volume, secret',
        'Give secretName',
    ),
}

WARNINGS = {
    'a field that only 2.17 knows': (
        change('platform/platforms/kubernetes/pipelineConfig', {'activeDeadlineSeconds': 60}),
        'platforms.kubernetes.pipelineConfig.activeDeadlineSeconds',
        'Only server 2.17',
    ),
    'a field that only 2.16 knows': (
        change('platform/platforms/kubernetes/pipelineConfig', {'resource_ttl': 60}),
        'platforms.kubernetes.pipelineConfig.resourceTtl',
        'Only server 2.16',
    ),
}

VALID = {
    'a mount with a slash at its end': change(f'{PLATFORM}/Push_executor/pvcMount/0/mountPath', '/serving/'),
    'a mount below a folder of the server': change(f'{PLATFORM}/Train_executor/emptyDirMounts', [CACHE]),
}


def test_a_broken_package_is_refused_with_the_place_and_what_mends_it(error_case):
    assert_error(*error_case)


def test_what_the_server_takes_but_hardly_anyone_means_is_a_warning(warning_case):
    assert_warning(*warning_case)


def test_what_the_server_and_kubernetes_take_is_not_a_problem(valid_case):
    assert lint_package(break_package(valid_case)) == []
