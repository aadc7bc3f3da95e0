"""Kills as in the campaign, one after the other in one root; `make campaign` does many more of them."""

import json
import os
import re
import signal
import time

import pytest

from tests import campaign_checks
from tests.campaign import Moment, find_faults, kill
from tests.campaign_runs import REUSED, run, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    """A run that is not killed."""
    reference = run(tmp_path_factory.mktemp('reference') / 'root')
    assert reference.exit_code == 0, reference.error
    return reference


def kill_in_epoch_3(root):
    """Starts a run and kills it when the checkpoint of the second of three epochs is complete."""
    with start(root) as process:
        while not list(root.glob('artifacts/Trainer/checkpoints/*/training/epoch-00002')):
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)


def read_history(layout):
    """Returns the epochs of the only training in a root."""
    (history,) = layout.artifacts.glob('Trainer/model_run/*/history.json')
    return json.loads(history.read_text())


def test_a_run_killed_in_statistics_in_epoch_3_and_at_the_push_ends_as_one_that_was_not(reference, tmp_path):
    root, last = tmp_path / 'root', reference.steps[-1].name
    kill(root, Moment('StatisticsGen', 0.4), reference)
    kill_in_epoch_3(root)
    (abandoned,) = root.glob('artifacts/Trainer/model_run/*')
    kill(root, Moment(last, None), reference)
    assert not abandoned.exists()
    logs = ''.join(log.read_text() for log in sorted((root / 'logs').iterdir()))
    assert re.search(r'training resumes after epoch [23] of 3', logs)
    resumed = run(root)
    assert find_faults(resumed, reference) == []
    for entry, expected in zip(read_history(resumed.layout), read_history(reference.layout), strict=True):
        assert (entry['epoch'], entry['val_accuracy']) == (expected['epoch'], expected['val_accuracy'])
        assert entry['loss'] == pytest.approx(expected['loss'], rel=1e-3)
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
