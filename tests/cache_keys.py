"""Prints what TFX's cache keys are made of, for a copy of our packages and for each of its files edited in turn.

    python -m tests.cache_keys FOLDER        a JSON object; FOLDER holds the copies of our packages

TFX takes seconds to import and our own packages a fraction of one, so the libraries are imported once, and each
edited copy is imported by a fork of this process.
"""

import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = ('components', 'trainer', 'pipeline')
STEP_PACKAGES = ('components', 'trainer')  # a step runs nothing of `pipeline`, which makes the graph


def import_libraries() -> None:
    """Imports everything that is slow and not ours."""
    for name in (
        'tfx.v1',
        'tensorflow_model_analysis',
        'tensorflow_data_validation',
        'tensorflow_transform',
        'keras',
        'kfp',
        'tfx.components.trainer.fn_args_utils',
        'tensorflow_serving.apis.prediction_service_pb2_grpc',
    ):
        importlib.import_module(name)


def make_components() -> list[Any]:
    """The components of the sample pipeline, by the packages that this process finds first."""
    from pipeline.config import PRESETS
    from pipeline.pipeline import create_pipeline

    return create_pipeline(PRESETS['sample']('/root-folder')).components


def read_properties() -> dict[str, str]:
    """Every component's execution properties as text."""
    return {node.id: json.dumps(node.exec_properties, sort_keys=True, default=str) for node in make_components()}


def list_run_modules() -> dict[str, list[str]]:
    """The modules of ours that each component names to TFX: its executor's, its driver's and its functions'."""
    modules = {}
    for node in make_components():
        functions = [node.exec_properties.get(key) for key in ('run_fn', 'preprocessing_fn')]
        names = [node.executor_spec.executor_class.__module__, node.driver_class.__module__]
        names += [function.rpartition('.')[0] for function in functions if function]
        modules[node.id] = sorted({name for name in names if name.split('.')[0] in PACKAGES})
    return modules


def list_imported(names: list[str]) -> list[str]:
    """The files of ours, relative to the folder, that Python has run once some modules are imported."""
    for name in names:
        importlib.import_module(name)
    ours = [module for name, module in sorted(sys.modules.items()) if name.split('.')[0] in PACKAGES]
    return [str(Path(module.__file__).relative_to(sys.path[0])) for module in ours]


def call_in_fork(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that a fork of this process calls, which leaves nothing imported here."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)

    def call() -> None:
        sender.send(function(*arguments))

    process = context.Process(target=call)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def main(folder: Path) -> dict[str, Any]:
    """Everything that the test compares.

    Returns:
      'run': by component, the files that are run when its executor, driver and functions are imported.
      'changed': by file, the components whose properties change with one more character at the file's end.
    """
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    import_libraries()
    modules = call_in_fork(list_run_modules)
    run = {node: call_in_fork(list_imported, names) for node, names in modules.items()}
    before = call_in_fork(read_properties)
    changed = {}
    for file in sorted(path for package in STEP_PACKAGES for path in (folder / package).rglob('*.py')):
        content = file.read_bytes()
        file.write_bytes(content + b'#')
        after = call_in_fork(read_properties)
        file.write_bytes(content)
        changed[str(file.relative_to(folder))] = sorted(node for node in before if before[node] != after[node])
    return {'run': run, 'changed': changed}


if __name__ == '__main__':
    output = os.dup(1)
    os.dup2(2, 1)  # the libraries talk on standard output too
    os.write(output, json.dumps(main(Path(sys.argv[1]))).encode())
