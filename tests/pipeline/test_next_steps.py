"""What a run says to do next."""

import pytest

from pipeline.next_steps import choose_after_failure, list_after_run, make_command


def test_a_pushed_model_is_to_be_tried_promoted_and_looked_up_with_paths_that_a_shell_takes():
    paths = {'pushed': '/my runs/serving/17', 'log': '/my runs/a.log'}
    assert list_after_run(paths, '/my runs/serving', '/my runs', is_pushed=True) == (
        "python -m pipeline predict --model '/my runs/serving' IMAGE",
        "python -m pipeline promote 17 --serving '/my runs/serving'",
        "python -m pipeline report --root '/my runs' --open",
    )


def test_a_refused_model_can_only_be_looked_up():
    assert list_after_run({}, '/r/serving', '/r', is_pushed=False) == ('python -m pipeline report --root /r --open',)


@pytest.mark.parametrize(
    ('options', 'is_expected', 'tried'),
    [
        ([], True, 'python -m pipeline run'),
        ([], False, 'python -m pipeline run --verbose'),
        (['--verbose'], False, 'python -m pipeline run --verbose'),
        (['--json'], False, 'python -m pipeline run --verbose'),
        (['--set', 'name=a b'], False, "python -m pipeline run --set 'name=a b' --verbose"),
    ],
)
def test_an_unexpected_failure_is_to_be_tried_with_what_the_libraries_say(options, is_expected, tried):
    assert choose_after_failure(make_command('run', *options), is_expected=is_expected) == tried
