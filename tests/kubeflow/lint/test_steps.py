"""The rules for executors: images, commands, resources and importers."""

from kubeflow.lint.linter import lint_package
from tests.kubeflow.lint.small_package import (
    CONTAINER,
    EXECUTORS,
    assert_error,
    assert_warning,
    change,
    make_executor,
    make_pipeline,
    make_platform,
    write,
)

OTHER_ROOT = {'artifactUri': {'constant': '/home/me/weights'}, 'typeSchema': {'schemaTitle': 'tfx.Model'}}
PRE_CACHE_CHECK = {'preCacheCheck': {'command': ['python']}}

ERRORS = {
    'resolver': (change(f'{EXECUTORS}/Train_executor', {'resolver': {}}), 'Train_executor', 'no resolvers', 'folder'),
    'step without an image': (change(f'{CONTAINER}/image'), 'Train_executor.container.image', 'no image', '--image'),
    'image with the tag latest': (
        change(f'{CONTAINER}/image', 'r:5000/a:latest'),
        'container.image',
        'a different day',
        'digest',
    ),
    'image without a tag': (
        change(f'{CONTAINER}/image', 'localhost:5000/a'),
        'container.image',
        'a different day',
        'digest',
    ),
    'step without a command': (
        change(f'{CONTAINER}/command'),
        'Train_executor.container.command',
        'are empty',
        'Give the command',
    ),
    'memory that is not a quantity': (
        change(f'{CONTAINER}/resources/resourceMemoryLimit', '8 GB'),
        'resources.resourceMemoryLimit',
        "'8 GB'",
        '8Gi',
    ),
    'quantity with an exponent that is too large': (
        change(f'{CONTAINER}/resources/resourceMemoryRequest', f'1e{"9" * 20}'),
        'resources.resourceMemoryRequest',
        'is not a quantity',
        '8Gi',
    ),
    'request over the limit': (
        change(f'{CONTAINER}/resources/resourceMemoryRequest', '8193Mi'),
        'resources.resourceMemoryRequest',
        '8193Mi is over the limit of 8Gi',
        'Lower it',
    ),
    'GPU without a count': (
        change(f'{CONTAINER}/resources/accelerator', {'resourceType': 'nvidia.com/gpu'}),
        'resources.accelerator',
        'silently',
        'resourceCount',
    ),
    'GPU named by its model': (
        change(f'{CONTAINER}/resources/accelerator/resourceType', 'NVIDIA_TESLA_T4'),
        'resources.accelerator',
        'no node has it',
        'nvidia.com/gpu',
    ),
    'importer of a local path': (
        change(f'{EXECUTORS}/Train_executor', {'importer': OTHER_ROOT}),
        'Train_executor.importer.artifactUri',
        '/home/me/weights',
        'object store',
    ),
}

WARNINGS = {
    'preCacheCheck of a cached step': (
        change(f'{EXECUTORS}/Import_executor/container/lifecycle', PRE_CACHE_CHECK),
        'Import_executor.container.lifecycle.preCacheCheck',
        'goes on with the result from older data',
    ),
    'executor that no component uses': (
        change(f'{EXECUTORS}/Old_executor', make_executor('old', resourceCpuLimit='1')),
        'deploymentSpec.executors.Old_executor',
        'apply to no step',
    ),
}


def test_a_broken_package_is_refused_with_the_place_and_what_mends_it(error_case):
    assert_error(*error_case)


def test_what_the_server_takes_but_hardly_anyone_means_is_a_warning(warning_case):
    assert_warning(*warning_case)


def test_no_resources_on_any_step_are_a_warning():
    spec = make_pipeline()
    for executor in spec['deploymentSpec']['executors'].values():
        del executor['container']['resources']
    (problem,) = lint_package(write(spec, make_platform()))
    assert problem.severity == 'warning'
    assert 'No step asks' in problem.what
