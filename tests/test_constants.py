"""What belongs to CIFAR-10 is in its own module, so that any other data set goes through the same code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.data import cifar10
from tests.conftest import PROJECT

PACKAGES = ('components', 'trainer', 'pipeline', 'kubeflow')
OWN = Path('components', 'data', 'cifar10.py')
_CLASS_NAME = re.compile(rf'\b({"|".join(cifar10.CONTRACT.class_names)})\b')
_NUMBERS = (cifar10.CONTRACT.num_classes, cifar10.CONTRACT.image_size, cifar10.RECORD_BYTES, cifar10.RECORD_BYTES - 1)

ALLOWED = {
    # Numbers of other things that happen to be 10 or 32, by the file and by what they are given to.
    'components/data/images/report.py': {'_NAMED', '_CLASSES'},  # how much a message names
    'components/data/sample.py': {'mask'},  # the radius of a shape in pixels
    'components/data_gate/tally.py': {'_KEPT_IDS'},
    'components/serving/models_config.py': {'_LOCK_ATTEMPTS'},  # seconds
    'components/serving/server_files.py': {'_QUEUE_S'},
    'components/serving/version_labels.py': {'_REQUEST_TIMEOUT_S'},
    'components/serving_check/config.py': {'batch_sizes'},
    'components/serving_check/tf_serving.py': {'_STOP_TIMEOUT_S'},
    'pipeline/client_grpc.py': {'batch_size'},
    'pipeline/client_rest.py': {'_CONNECT_TIMEOUT_S', 'batch_size'},
    'pipeline/compare.py': {'_format_number', 'text'},  # below it, three decimals
    'pipeline/config.py': {'test', 'small'},  # the least number of sample images, and a batch size
    'pipeline/drift.py': {'_format', 'first'},
    'pipeline/report/figures.py': {'_PICTURES_A_CELL'},
    'pipeline/report/network.py': {'_BATCH'},
    'pipeline/report/report.py': {'_NAMED_BOUNDS'},
    'pipeline/server/config_files.py': {'max_enqueued_batches'},
    'pipeline/server/metrics.py': {'_LATENCY_BUCKETS'},
    'pipeline/server/request_sample.py': {'_MAX_WAITING_BYTES'},
    'kubeflow/lint/linter.py': {'_MAX_FILE'},
    'kubeflow/rehearsal/launcher.py': {'workflow'},  # bits of a random number
    'trainer/backbones.py': {'STRIDE', 'BACKBONES'},
    'trainer/cache.py': {'_PROBE_BYTES'},
    'trainer/calibration.py': {'BATCH'},
    'trainer/config.py': {'batch_size', 'epochs'},  # of the published recipe
    'trainer/predictions.py': {'MAX_IMAGES'},
    'trainer/served_model.py': {'MICRO_BATCH'},
    'trainer/training_rows.py': {'TRUNK_BATCH'},
}


def _name_targets(node: ast.AST) -> Iterator[str]:
    """What a statement gives its value to, or the name that it defines."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        first = target.elts[0] if isinstance(target, ast.Tuple) else target
        if isinstance(first, ast.Name):
            yield first.id
    if isinstance(node, ast.FunctionDef):
        yield node.name


def list_constants(node: ast.AST, owner: str = '') -> Iterator[tuple[str, ast.Constant]]:
    """Every constant but docstrings, with the nearest thing around it that has a name."""
    owner = next(_name_targets(node), owner)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Constant):
            if not isinstance(node, ast.Expr):
                yield owner, child
        else:
            yield from list_constants(child, owner)


FILES = sorted(file.relative_to(PROJECT) for package in PACKAGES for file in (PROJECT / package).rglob('*.py'))


@pytest.mark.parametrize('file', [file for file in FILES if file != OWN], ids=str)
def test_only_cifar10s_module_knows_its_classes_their_number_and_its_size(file):
    found = set()
    for owner, constant in list_constants(ast.parse((PROJECT / file).read_text())):
        if isinstance(constant.value, str):
            assert not _CLASS_NAME.search(constant.value), f'{file}:{constant.lineno}: {constant.value!r}'
        elif type(constant.value) in (int, float) and constant.value in _NUMBERS:
            assert owner in ALLOWED.get(str(file), ()), f'{file}:{constant.lineno}: {constant.value} in {owner}'
            found.add(owner)
    assert found == ALLOWED.get(str(file), set()), 'ALLOWED lists what is not there'


def test_what_is_looked_for_is_found():
    constants = list(list_constants(ast.parse((PROJECT / OWN).read_text())))
    assert {value.value for _, value in constants} >= set(cifar10.CONTRACT.class_names)
    assert ('CONTRACT', cifar10.CONTRACT.image_size) in {(owner, value.value) for owner, value in constants}
