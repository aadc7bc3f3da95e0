"""A local HTTP server with the part of Kubeflow Pipelines' API v2beta1 that `submit` needs; it records the requests.

Like a multi-user server it lists only what is in the requested namespace; the namespace '' is shared by all users.
"""

import email.parser
import http.server
import json
import threading
import urllib.parse
from typing import NamedTuple

API = '/apis/v2beta1/'


class Call(NamedTuple):
    """A request.

    what: method and path, such as 'POST runs'.
    query: the parameters in the address.
    body: parsed JSON, or the bytes of the uploaded file.
    """

    what: str
    query: dict[str, str]
    body: dict | bytes | None


class KubeflowServer:
    """Keeps pipelines, versions, experiments, and runs in memory.

    run_answers: the responses to requests about a run, one after the other; the last one is repeated. Each has state
      and tasks.
    refusals: by 'METHOD path': HTTP statuses to respond with instead, one for each request.
    nulls: each 'METHOD path' whose response is null.
    health: what it says about itself.
    """

    def __init__(self):
        self.calls: list[Call] = []
        self.run_answers: list[dict] = [{'state': 'SUCCEEDED'}]
        self.refusals: dict[str, list[int]] = {}
        self.nulls: set[str] = set()
        self.health = {'apiServerTagName': '2.16.1'}
        self.kept: dict[str, list[dict]] = {name: [] for name in ('pipelines', 'versions', 'experiments', 'runs')}
        self.kept['recurringruns'] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                owner._answer(self)

            do_POST = do_GET

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def list_posted(self, path: str) -> list[Call]:
        """Returns the POST requests to a path."""
        return [call for call in self.calls if call.what == f'POST {path}']

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        address = urllib.parse.urlsplit(request.path)
        content = request.rfile.read(int(request.headers.get('Content-Length') or 0))
        call = Call(
            f'{request.command} {address.path.removeprefix(API)}',
            dict(urllib.parse.parse_qsl(address.query)),
            _parse_body(request.headers.get('Content-Type', ''), content),
        )
        self.calls.append(call)
        refused = self.refusals.get(call.what)
        status = refused.pop(0) if refused else 200
        answer = json.dumps(self._make_answer(call) if status == 200 else {'error': 'no such luck'}).encode()
        request.send_response(status)
        request.send_header('Content-Type', 'application/json')
        request.send_header('Content-Length', str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    def _make_answer(self, call: Call) -> dict | None:
        if call.what in self.nulls:
            return None
        method, _, path = call.what.partition(' ')
        parts = path.split('/')
        if path == 'healthz':
            return {'multi_user': False, **self.health}
        if path == 'pipelines/upload_version':
            fields = {'pipeline_id': call.query['pipelineid'], 'display_name': call.query['name']}
            return self._keep('versions', 'pipeline_version_id', fields)
        if path.endswith(':disable'):
            [found] = [run for run in self.kept['recurringruns'] if f'{run["recurring_run_id"]}:disable' == parts[1]]
            found['status'] = 'DISABLED'
            return {}
        if method == 'POST':
            one = parts[0].removesuffix('s')
            identifier = {'recurringrun': 'recurring_run_id'}.get(one, f'{one}_id')
            more = {'status': 'ENABLED'} if one == 'recurringrun' else {}
            return self._keep(parts[0], identifier, {**call.body, **more})
        if parts[0] == 'runs':
            answer = self.run_answers.pop(0) if len(self.run_answers) > 1 else self.run_answers[0]
            return {
                'run_id': parts[1],
                'state': answer['state'],
                'run_details': {'task_details': answer.get('tasks', [])},
            }
        return self._list(parts, call.query)

    def _keep(self, kind: str, identifier: str, fields: dict) -> dict:
        self.kept[kind].append({**fields, identifier: f'{kind}-{len(self.kept[kind]) + 1}'})
        return self.kept[kind][-1]

    def _list(self, parts: list[str], query: dict[str, str]) -> dict:
        if parts[-1] == 'versions':
            key, found = 'pipeline_versions', [one for one in self.kept['versions'] if one['pipeline_id'] == parts[1]]
        else:
            key, found = {'recurringruns': 'recurringRuns'}.get(parts[0], parts[0]), self.kept[parts[0]]
            found = [one for one in found if one.get('namespace', '') == query.get('namespace', '')]
        for predicate in json.loads(query.get('filter') or '{}').get('predicates', []):
            wanted = predicate.get('stringValue', predicate.get('string_value'))
            found = [one for one in found if one[predicate['key']] == wanted]
        return {key: found} if found else {}


def _parse_body(kind: str, content: bytes) -> dict | bytes | None:
    if kind.startswith('multipart/'):
        message = email.parser.BytesParser().parsebytes(f'Content-Type: {kind}\r\n\r\n'.encode() + content)
        return message.get_payload()[0].get_payload(decode=True)
    return json.loads(content) if content else None
