"""Prints which files of ours Python runs to import what each component of the pipeline names to TFX.

    python -m tests.run_files        a JSON object: {component: [file relative to the project, ...]}

TFX takes seconds to import and our own packages a fraction of one, so the libraries are imported once, and a fork of
this process imports the modules of each component.
"""

import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
PACKAGES = ('components', 'trainer')  # a step runs nothing else of ours
LIBRARIES = (
    'tfx.v1',
    'tensorflow_model_analysis',
    'tensorflow_data_validation',
    'tensorflow_transform',
    'keras',
    'tfx.components.trainer.fn_args_utils',
    'tensorflow_serving.apis.prediction_service_pb2_grpc',
)


def list_modules() -> dict[str, list[str]]:
    """Returns the modules of ours that hold each component's executor, driver and functions."""
    from pipeline.config import PRESETS
    from pipeline.pipeline import create_pipeline

    modules = {}
    for node in create_pipeline(PRESETS['sample']('/root-folder')).components:
        functions = [node.exec_properties.get(key) for key in ('run_fn', 'preprocessing_fn')]
        names = [node.executor_spec.executor_class.__module__, node.driver_class.__module__]
        names += [function.rpartition('.')[0] for function in functions if function]
        modules[node.id] = sorted({name for name in names if name.split('.')[0] in PACKAGES})
    return modules


def list_imported(names: list[str]) -> list[str]:
    """Imports modules, and returns the files of ours that Python has run by then."""
    for name in names:
        importlib.import_module(name)
    ours = [module for name, module in sorted(sys.modules.items()) if name.split('.')[0] in PACKAGES]
    return [str(Path(module.__file__).relative_to(PROJECT)) for module in ours]


def call_in_fork(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the result of a function that a fork of this process calls, which leaves nothing imported here."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(function(*arguments)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


if __name__ == '__main__':
    output = os.dup(1)
    os.dup2(2, 1)  # the libraries print to standard output too
    for library in LIBRARIES:
        importlib.import_module(library)
    files = {node: call_in_fork(list_imported, names) for node, names in call_in_fork(list_modules).items()}
    os.write(output, json.dumps(files).encode())
