"""Watches a run on a Kubeflow Pipelines server until it ends; `submit` calls it."""

import time
from typing import TextIO

import kfp_server_api
import urllib3
from kfp.client import Client

from components.errors import PipelineError, to_one_line

_MAX_LOST_POLLS = 24  # failed requests in a row; a broken connection does not disturb the run on the server
_FAILED = ('FAILED', 'CANCELED')
_NAMESPACE = 'kubeflow'  # of the pods, if a server does not have a namespace for each user


def watch_run(client: Client, run_id: str, address: str, tasks: set[str], out: TextIO, poll_s: float) -> int:
    """Prints a line for each step whose state changed, until the run has ended.

    Args:
      client: of the server.
      run_id: of the run.
      address: the page that shows the run in a browser.
      tasks: names of the steps; the server also lists nodes of its own, which are not printed.
      out: where the lines are printed.
      poll_s: seconds between two requests.

    Returns:
      The exit code: 0 if the run succeeded, 1 if it failed or was cancelled. A run in which the model gate refused the
      model succeeds too: its Pusher runs and pushes nothing, and the API does not show the difference.

    Raises:
      PipelineError: the server did not respond any more, or the user stopped watching, while the run went on.
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
        raise PipelineError(f'You stopped watching; the run goes on: {address}') from None
    if run.state in _FAILED:
        _show_failures(details, tasks, out)
        print(f'the run {run.state.lower()}; {_describe_logs(client, run_id)}', file=out)
        return 1
    print(
        'the run succeeded; the API does not say whether the model gate let the model be pushed, but '
        '`python -m pipeline versions` does',
        file=out,
    )
    return 0


def _get_run(client: Client, run_id: str, address: str, poll_s: float) -> kfp_server_api.V2beta1Run:
    """Gets the run, and tries again if the connection broke: a forwarded port breaks every few hours."""
    for attempt in range(_MAX_LOST_POLLS):
        try:
            return client.get_run(run_id)
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            if attempt + 1 == _MAX_LOST_POLLS:
                raise PipelineError(
                    f'The server does not respond any more ({to_one_line(error)}); the run goes on: {address}'
                ) from error
            time.sleep(poll_s)


def _show_changes(details: list[kfp_server_api.V2beta1PipelineTaskDetail], shown: dict[str, str], out: TextIO) -> None:
    """Prints a line for each task whose state differs from the one in `shown`, which is updated."""
    for task in details:
        if task.state and shown.get(task.display_name) != task.state:
            shown[task.display_name] = task.state
            has_ended = task.start_time and task.end_time and task.state not in ('PENDING', 'RUNNING')
            seconds = f'{(task.end_time - task.start_time).total_seconds():.0f} s' if has_ended else ''
            print(f'{task.display_name:<18} {task.state:<10} {seconds}'.rstrip(), file=out)


def _show_failures(details: list[kfp_server_api.V2beta1PipelineTaskDetail], tasks: set[str], out: TextIO) -> None:
    """Prints a line for each task that failed, or whose driver failed, which prepares the inputs of the task."""
    for task in details:
        if task.state == 'FAILED' and task.display_name.removesuffix('-driver') in tasks:
            print(f'{task.display_name} failed', file=out)


def _describe_logs(client: Client, run_id: str) -> str:
    """Returns the command that prints the logs of the failed pods, which say why the run failed.

    The API does not say it: the server (toApiPipelineTaskDetail) does not set the error of a step, and `child_tasks`
    are nodes of the workflow, not pods.
    """
    namespace = client.get_user_namespace() or _NAMESPACE
    return (
        f'its logs: kubectl get pods -n {namespace} -l pipeline/runid={run_id} --field-selector status.phase=Failed '
        f'-o name | xargs -n 1 kubectl logs -n {namespace} -c main --prefix --tail 20'
    )
