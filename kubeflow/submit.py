"""`submit`: uploads a compiled package to a Kubeflow Pipelines server, and runs or schedules it.

It uses kfp's client, which also reads ~/.config/kfp/context.json (namespace, authentication).
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import kfp_server_api
import urllib3
from kfp.client import Client

from components.errors import PipelineError, UsageError, to_one_line
from kubeflow.package import Package, parse_parameters, read_package
from kubeflow.watch import watch_run

_POLL_S = 5.0


class Submission(NamedTuple):
    """A package, and how to run it.

    package: the YAML file that `compile` wrote.
    host: address of the server, http://... or https://...
    experiment: name of the group of runs that the run is shown in; it is made if it does not exist.
    cron: schedule of a recurring run, six fields, seconds first; None runs the package once, now.
    assignments: KEY=VALUE texts for the pipeline's parameters.
    wait: whether to watch the run to its end.
    service_account: of the pods; None for the server's default.
    """

    package: Path
    host: str
    experiment: str
    cron: str | None
    assignments: list[str]
    wait: bool
    service_account: str | None = None


def submit(submission: Submission, out: TextIO, poll_s: float = _POLL_S) -> int:
    """Uploads a package, starts or schedules a run of it, and watches the run.

    Args:
      submission: the package, and how to run it.
      out: where a line is printed for each thing done, and for each step whose state changed.
      poll_s: seconds between two requests about the run.

    Returns:
      The exit code: 0 if the run succeeded, was only started, or was scheduled; 1 if it failed or was cancelled.

    Raises:
      UsageError: the package, a parameter, the schedule or the host is wrong.
      PipelineError: the server refused a request, or did not respond any more while the run went on.
    """
    host = _check(submission)
    package = read_package(submission.package)
    parameters = parse_parameters(package, submission.assignments)
    with _explain(host):
        client = Client(host=host)
        _show_version(client, package, out)
        pipeline_id, version_id = _upload(client, submission.package, package, out)
        options = {
            'experiment_id': client.create_experiment(submission.experiment).experiment_id,
            'job_name': package.name,
            'pipeline_id': pipeline_id,
            'version_id': version_id,
            'params': parameters,
            'pipeline_root': package.pipeline_root,  # neither client nor server reads it from the package
            'service_account': submission.service_account,
        }
        if submission.cron is not None:
            _schedule(client, submission.cron, options, out)
            return 0
        run_id = client.run_pipeline(**options).run_id
    address = f'{host}/#/runs/details/{run_id}'
    print(f'run {run_id}: {address}', file=out)
    return watch_run(client, run_id, address, package.list_steps(), out, poll_s) if submission.wait else 0


def _check(submission: Submission) -> str:
    """Checks the schedule and the server's address; returns the address without a slash at its end."""
    if submission.cron is not None and len(submission.cron.split()) != 6:
        raise UsageError(
            '--recurring takes six fields, seconds first, such as "0 0 3 * * 1" for Mondays at 3. '
            f'Received: {submission.cron!r}'
        )
    if not submission.host.startswith(('http://', 'https://')):
        raise UsageError(f'--host takes an http or https address. Received: {submission.host!r}')
    return submission.host.rstrip('/')


@contextlib.contextmanager
def _explain(host: str) -> Iterator[None]:
    """Turns the exceptions of kfp's client into errors of ours, with a sentence for the user."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        answer = to_one_line(error.body or error.reason or error)
        raise PipelineError(f'{host} refused the request ({error.status}): {answer}') from error
    except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
        # The client raises AttributeError if a response is null.
        raise UsageError(
            f'{host} does not answer as a Kubeflow Pipelines server ({to_one_line(error)}). Check the address, and '
            'that the port is forwarded (kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80).'
        ) from error


_NO_RETRIES_SINCE = (2, 17)  # the Argo controller's configuration that comes with this server retries only lost pods


def _show_version(client: Client, package: Package, out: TextIO) -> None:
    """Prints the server's version, and what it does to the package's retries.

    The API server has the version as tag_name (apiserver/main.go newHealthzResponse), and the server of the web pages
    as apiServerTagName (frontend/server/handlers/healthz.ts). kfp's client drops both.
    """
    api = client.pipelines.api_client
    path, authentication = '/apis/v2beta1/healthz', ['Bearer']
    answer, _, _ = api.call_api(path, 'GET', response_type='object', auth_settings=authentication)
    version = str(answer.get('apiServerTagName') or answer.get('tag_name') or 'of unknown version')
    print(f'server {version}', file=out)
    numbers = re.match(r'(\d+)\.(\d+)', version)
    can_retry = numbers is not None and (int(numbers[1]), int(numbers[2])) < _NO_RETRIES_SINCE
    tasks = [task for dag in package.list_dags() for task in dag['tasks'].values()]
    if not can_retry and any(task.get('retryPolicy', {}).get('maxRetryCount') for task in tasks):
        print(
            'warning: servers from 2.17 on, as they are shipped, do not start a step again that failed, whatever the '
            'package says; docs/kubeflow.md, Retries, says what to change in the cluster',
            file=out,
        )


def _upload(client: Client, path: Path, package: Package, out: TextIO) -> tuple[str, str]:
    """Creates the pipeline and its version on the server if they are not there; returns their ids.

    A version is named by the digest of the package, so that the same package is uploaded only once.
    """
    name = f'{package.name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}'
    namespace = client.get_user_namespace()
    # Not client.get_pipeline_id, which passes no namespace: a multi-user server then lists only shared pipelines.
    found = client.list_pipelines(namespace=namespace, filter=_make_filter(package.name)).pipelines
    if found:
        pipeline_id = found[0].pipeline_id
    else:
        body = kfp_server_api.V2beta1Pipeline(
            name=package.name, display_name=package.name, description=package.description, namespace=namespace
        )
        pipeline_id = client.pipelines.pipeline_service_create_pipeline(pipeline=body).pipeline_id
        print(f'pipeline {package.name} created', file=out)
    found = client.list_pipeline_versions(pipeline_id, filter=_make_filter(name)).pipeline_versions
    if found:
        print(f'version {name} is there already', file=out)
        return pipeline_id, found[0].pipeline_version_id
    version = client.upload_pipeline_version(str(path), name, pipeline_id=pipeline_id, description=package.description)
    print(f'version {name} uploaded', file=out)
    return pipeline_id, version.pipeline_version_id


def _make_filter(name: str) -> str:
    return json.dumps({'predicates': [{'operation': 'EQUALS', 'key': 'display_name', 'stringValue': name}]})


def _schedule(client: Client, cron: str, options: dict[str, Any], out: TextIO) -> None:
    """Creates the recurring run, then disables older recurring runs of the same pipeline in the experiment."""
    listed = client.list_recurring_runs(experiment_id=options['experiment_id'], page_size=100).recurring_runs or []
    made = client.create_recurring_run(cron_expression=cron, no_catchup=True, **options)
    print(f'recurring run {made.recurring_run_id}: {cron}', file=out)
    for old in listed:
        if old.display_name == options['job_name'] and old.status == 'ENABLED':
            client.disable_recurring_run(old.recurring_run_id)
            print(f'recurring run {old.recurring_run_id}, which it replaces, is disabled', file=out)
