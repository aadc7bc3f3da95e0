"""The rehearsal gives each step what the launcher of a server gave it.

recorded_inputs.json has the ExecutorInput of each step in a run through the code of Kubeflow Pipelines at 7b70c7b95f,
2.17.0 and a little: the driver, the launcher, ML Metadata and an S3 store. Ids are replaced by UUID and NUMBER. What
changes with the settings and with our code is replaced too: the values of parameters by TEXT, WHOLE and FRACTION, and
the class paths of our artifact types by OURS. CuratedSchemaGen, which was reused from the cache, is not in it.
"""

import json
import re
from pathlib import Path

import pytest
import yaml

from kubeflow.compile import create_package
from kubeflow.package import read_package
from kubeflow.rehearsal.rehearse import Rehearsal
from tests.kubeflow.compiling import TARGET, make_config

RECORDED = json.loads(Path(__file__).with_name('recorded_inputs.json').read_text())
UUID = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')
ADDED = ('display_name', 'store_session_info')  # by the launcher, to what a step says of its output
STAND_IN = """
import json, pathlib, sys
step, said, folder = sys.argv[1:4]
given = json.loads(sys.argv[sys.argv.index('--json_serialized_invocation_args') + 1])
pathlib.Path(folder, step + '.json').write_text(json.dumps(given))
outputs = given['outputs']
for name, metadata in json.loads(said).items():
    outputs['artifacts'][name]['artifacts'][0]['metadata'] = metadata
written = {name: entry for name, entry in outputs['artifacts'].items() if name != 'executor-logs'}
output = pathlib.Path(outputs['outputFile'])
output.parent.mkdir(parents=True, exist_ok=True)
output.write_text(json.dumps({'artifacts': written}))
"""
"""Takes the place of a step: keeps its input, and says of its outputs what the recorded step said of them."""


def list_said(spec: dict) -> dict[str, dict]:
    """What each step said of its outputs, by the step and the output, from the recorded inputs of the next steps."""
    said: dict[str, dict] = {}
    for reader, recorded in RECORDED.items():
        for key, entry in recorded['inputs'].get('artifacts', {}).items():
            source = spec['root']['dag']['tasks'][reader]['inputs']['artifacts'][key]['taskOutputArtifact']
            metadata = entry['artifacts'][0]['metadata'].items()
            # ML Metadata gives an object back as {'struct': object}.
            kept = {name: dict(value).get('struct') if isinstance(value, dict) else value for name, value in metadata}
            kept = {name: value for name, value in kept.items() if name not in ADDED}
            said.setdefault(source['producerTask'], {})[source['outputArtifactKey']] = kept
    return said


@pytest.fixture(scope='module')
def inputs(tmp_path_factory) -> dict[str, dict]:
    """The input of each step in a rehearsal, in the form of the recorded ones."""
    folder = tmp_path_factory.mktemp('inputs')
    spec, platform = yaml.safe_load_all(create_package(make_config(), TARGET))
    said = list_said(spec)
    for name, executor in spec['deploymentSpec']['executors'].items():
        step = name.removesuffix('_executor')
        executor['container']['command'] = ['python', '-c', STAND_IN, step, json.dumps(said.get(step, {})), str(folder)]
    package = folder / 'package.yaml'
    package.write_text(yaml.safe_dump_all([spec, platform]))
    run = '00000000-0000-4000-8000-000000000000'
    Rehearsal(read_package(package), folder / 'r', {}, run, lambda result: None).run({})
    root = str(folder / 'r' / 'root')
    return {step: simplify((folder / f'{step}.json').read_text().replace(root, '')) for step in RECORDED}


def simplify(text: str) -> dict:
    """Replaces what differs from run to run, and what changes with our code."""
    given = json.loads(re.sub(r'title: components\.[\w.]+', 'title: OURS', UUID.sub('UUID', text)))
    values = given['inputs'].get('parameterValues', {})
    names = {str: 'TEXT', int: 'WHOLE', float: 'FRACTION'}
    values |= {name: names[type(value)] for name, value in values.items()}
    for entry in given['inputs'].get('artifacts', {}).values():
        for artifact in entry['artifacts']:
            assert artifact['name'].isdigit()
            artifact['name'] = 'NUMBER'
    return given


def leave_recorded(given: dict, recorded: dict) -> dict:
    """Leaves out the parameters and artifacts that the code has got since the recording."""
    return {
        side: {
            kind: {name: value for name, value in entries.items() if name in recorded[side][kind]}
            if isinstance(entries, dict)
            else entries
            for kind, entries in given[side].items()
            if kind in recorded[side]
        }
        for side in given
    }


@pytest.mark.parametrize('step', RECORDED)
def test_the_rehearsals_input_of_each_step_equals_the_recorded_one(inputs, step):
    assert leave_recorded(inputs[step], RECORDED[step]) == RECORDED[step]
    assert all(all(side.values()) for side in inputs[step].values()), 'empty fields are not written'
