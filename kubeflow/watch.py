"""Watches a run on a Kubeflow Pipelines server to its end; `submit` calls it."""

import time
from typing import TextIO

import kfp_server_api
import urllib3
from kfp.client import Client

from components.errors import PipelineError, to_one_line

_MAX_LOST_POLLS = 24  # a broken connection; the run on the server does not notice
_GATED_TASK = 'Pusher'
_FAILED = ('FAILED', 'CANCELED')
_NAMESPACE = 'kubeflow'  # of the pods, where a server has no namespace for each user
_REFUSED_EXIT_CODE = 3


def watch_run(client: Client, run_id: str, address: str, tasks: set[str], out: TextIO, poll_s: float) -> int:
    """Prints a line for each step whose state changed, until the run has ended.

    Args:
      client: of the server.
      run_id: of the run.
      address: where a browser shows it.
      tasks: names of the steps; what else the server lists are nodes of its own.
      out: gets the lines.
      poll_s: seconds between two questions about the run.

    Returns:
      The exit code, as `kubeflow.submit.submit` has it.

    Raises:
      PipelineError: the server was lost, or the watching was stopped, while the run went on.
    """
    shown: dict[str, str] = {}
    try:
        while True:
            run = _get_run(client, run_id, address, poll_s)
            details = (run.run_details and run.run_details.task_details) or []
            details = [task for task in details if task.display_name]
            _show_changes([task for task in details if task.display_name in tasks], shown, out)
            if run.state in ('SUCCEEDED', 'SKIPPED', *_FAILED):
                break
            time.sleep(poll_s)
    except KeyboardInterrupt:
        raise PipelineError(f'The watching was stopped; the run goes on: {address}') from None
    if run.state in _FAILED:
        _show_failures(details, tasks, out)
        print(f'the run {run.state.lower()}; {_describe_logs(client, run_id)}', file=out)
        return 1
    if shown.get(_GATED_TASK) == 'SKIPPED':
        print('the model gate refused the model: nothing was pushed', file=out)
        return _REFUSED_EXIT_CODE
    print(
        'the run succeeded; whether the gate let its model be pushed, the API does not say: `versions` does', file=out
    )
    return 0


def _get_run(client: Client, run_id: str, address: str, poll_s: float) -> kfp_server_api.V2beta1Run:
    """Asks again where the connection broke: a forwarded port does so every few hours."""
    for attempt in range(_MAX_LOST_POLLS):
        try:
            return client.get_run(run_id)
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            if attempt + 1 == _MAX_LOST_POLLS:
                raise PipelineError(
                    f'The server was lost ({to_one_line(error)}); the run goes on: {address}'
                ) from error
            time.sleep(poll_s)


def _show_changes(details: list, shown: dict[str, str], out: TextIO) -> None:
    """A line for each task whose state is not the one in `shown`, which is updated."""
    for task in details:
        if task.state and shown.get(task.display_name) != task.state:
            shown[task.display_name] = task.state
            has_ended = task.start_time and task.end_time and task.state not in ('PENDING', 'RUNNING')
            seconds = f'{(task.end_time - task.start_time).total_seconds():.0f} s' if has_ended else ''
            print(f'{task.display_name:<18} {task.state:<10} {seconds}'.rstrip(), file=out)


def _show_failures(details: list, tasks: set[str], out: TextIO) -> None:
    """A line for each task that failed, or whose driver did, which prepares its inputs."""
    for task in details:
        if task.state == 'FAILED' and task.display_name.removesuffix('-driver') in tasks:
            print(f'{task.display_name} failed', file=out)


def _describe_logs(client: Client, run_id: str) -> str:
    """The command that prints why it failed, which the pods' logs alone say.

    The server (toApiPipelineTaskDetail) sets no error of a step, and `child_tasks` are the workflow's nodes, not pods.
    """
    namespace = client.get_user_namespace() or _NAMESPACE
    return (
        f'its logs: kubectl get pods -n {namespace} -l pipeline/runid={run_id} --field-selector status.phase=Failed '
        f'-o name | xargs -n 1 kubectl logs -n {namespace} -c main --prefix --tail 20'
    )
