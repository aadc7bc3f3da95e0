"""Three of the campaign's kills, one after the other in one root; `make campaign` does all of them."""

import pytest

from tests import campaign_checks
from tests.campaign import Moment, find_faults, kill
from tests.campaign_runs import REUSED, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    """A run that is not killed."""
    reference = run(tmp_path_factory.mktemp('reference') / 'root')
    assert reference.exit_code == 0, reference.error
    return reference


def test_a_run_killed_in_statistics_in_the_trainer_and_at_the_push_ends_as_one_that_was_not(reference, tmp_path):
    root, last = tmp_path / 'root', reference.steps[-1].name
    for moment in (Moment('StatisticsGen', 0.4), Moment('Trainer', 0.6), Moment(last, None)):
        kill(root, moment, reference)
    resumed = run(root)
    assert find_faults(resumed, reference) == []
    others = {step.name for step in reference.steps} - {'(imports)', '(sample data)', last}
    assert others <= {step.name for step in resumed.steps if step.note.startswith(REUSED)}


def test_the_checks_find_everything_that_a_kill_may_leave(reference):
    """Runs the campaign's checks on a root with a fault of each kind."""
    layout = reference.layout
    assert campaign_checks.find_orphans(layout) == campaign_checks.find_metadata_faults(layout) == []
    orphan = layout.artifacts / 'Trainer' / 'model' / '999'
    staged = layout.serving / '.version.partial-host-1'
    for folder in (orphan, staged):
        folder.mkdir()
    assert campaign_checks.find_orphans(layout) == [f'{path} is left over' for path in (orphan, staged)]
    (graph,) = (layout.artifacts / 'Transform' / 'transform_graph').iterdir()
    graph.rename(layout.root / 'elsewhere')
    store = campaign_checks.open_store(layout)
    execution = store.get_executions()[-1]
    execution.last_known_state = execution.RUNNING
    store.put_executions([execution])
    faults = campaign_checks.find_metadata_faults(layout)
    assert f'execution {execution.id} is RUNNING' in faults
    assert any(fault.endswith(f'{graph} is gone') for fault in faults)
    (version,) = campaign_checks.list_versions(layout)
    version.with_name('1').mkdir()
    assert campaign_checks.find_model_faults(layout, layout) == ['2 versions were pushed']
