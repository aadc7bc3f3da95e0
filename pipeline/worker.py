"""`worker`: takes part in the training of a run's Trainer, on several machines that see the same root.

A run of the whole pipeline is one process. So the run prepares the data, workers train on it, and the same run, started
again, takes their checkpoints over: its gates judge the model, and it is pushed as any other.
"""

import contextlib
import datetime
import json
import os
import tempfile
import types
from pathlib import Path
from typing import Any

from components import features
from components.errors import UsageError, to_one_line
from components.hyperparameters import BEST_FILE
from components.serving.versions import MODEL_FILE
from pipeline.config import Layout
from pipeline.console import divert_chatter
from pipeline.local import lock_root
from pipeline.run_history import check_root
from pipeline.run_record import RUN_TYPE, open_store
from pipeline.run_steps import Step, find_output, read_steps
from pipeline.storage import explain_fault
from trainer.rendezvous import read_workers

_INPUTS = (('ImportExampleGen', 'examples'), ('Transform', 'transform_graph'), ('CuratedSchemaGen', 'schema'))
"""What the training reads: component and key of its output."""


def work(layout: Layout, *, verbose: bool) -> str:
    """Trains until the training of the newest run has ended.

    Args:
      layout: The root of the run, under the same path on every machine.
      verbose: Shows the libraries' own output too; it is in the root's logs anyway.

    Returns:
      What was done, for the user.

    Raises:
      UsageError: TF_CONFIG does not list several workers, the root has no run whose Trainer began, or its settings are
        not for several workers.
      TrainingError: Other workers did not come in time, or the training failed.
      PipelineError: ML Metadata or the data cannot be read.
    """
    workers = read_workers(os.environ.get('TF_CONFIG', ''))
    if workers.count < 2:
        raise UsageError(
            'A worker needs the environment variable TF_CONFIG with the addresses of at least two workers; '
            'docs/training.md shows one.'
        )
    steps = _read_newest_steps(layout)
    arguments = _make_arguments(steps, _read_config(steps, layout), layout)
    # The run that takes the checkpoints over must not begin while the first worker writes them.
    lock = lock_root(layout.root) if workers.index == 0 else contextlib.nullcontext()
    log_file = layout.logs / f'worker-{workers.index}-{datetime.datetime.now():%Y%m%d-%H%M%S}.log'
    with lock, tempfile.TemporaryDirectory() as folder, divert_chatter(log_file, verbose=verbose):
        from trainer.train import run_worker

        run_worker(types.SimpleNamespace(**arguments, model_run_dir=folder))
    return (
        f'worker {workers.index} of {workers.count} has ended; when all have, start the run again, without TF_CONFIG: '
        'it takes the trained model over'
    )


def _read_newest_steps(layout: Layout) -> tuple[Step, ...]:
    """Reads the components of the newest run whose Trainer began."""
    check_root(layout)
    try:
        store = open_store(layout.metadata, is_read_only=True)
        for context in sorted(store.get_contexts_by_type(RUN_TYPE), key=lambda context: -context.id):
            steps = read_steps(store, context.id)
            if any(step.component == 'Trainer' for step in steps):
                return steps
    except Exception as error:
        raise explain_fault(error, layout) or UsageError(
            f'The runs in {layout.root} cannot be read: {to_one_line(error)}'
        ) from error
    raise UsageError(
        f'{layout.root} has no run that came to its Trainer; start one with --set trainer.strategy=multi_worker, '
        'which ends there.'
    )


def _read_config(steps: tuple[Step, ...], layout: Layout) -> dict[str, Any]:
    """Returns the Trainer's `custom_config`, and refuses settings with which workers would not train one model."""
    trainer = next(step for step in steps if step.component == 'Trainer')
    config: dict[str, Any] = json.loads(trainer.execution.custom_properties['custom_config'].string_value)
    for name, allowed in (('strategy', ('auto', 'multi_worker')), ('weight_average', ('none',))):
        if config['trainer'][name] not in allowed:
            raise UsageError(
                f'The newest run of {layout.root} has trainer.{name}={config["trainer"][name]}, which works on one '
                f'machine only; start it with --set trainer.{name}={allowed[-1]}.'
            )
    return config


def _make_arguments(steps: tuple[Step, ...], config: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """Makes the arguments that TFX would give to `run_fn`, as far as the training needs them."""
    places = {}
    for component, key in _INPUTS:
        artifact = find_output(steps, component, key)
        if artifact is None or not Path(artifact.uri).is_dir():
            raise UsageError(
                f'The output `{key}` of {component} is gone from {layout.root}, or is not under the same path on this '
                'machine; start the run again, and mount its root under one path on all machines.'
            )
        places[key] = artifact.uri
    base_model = find_output(steps, 'BaseModelFinder', 'model')
    chosen = find_output(steps, 'Tuner', 'best_hyperparameters')
    saved_model = next(Path(base_model.uri).glob(f'*/{MODEL_FILE}'), None) if base_model else None
    # Beside the Trainer's outputs, as `trainer.checkpoint.locate_checkpoints` has it.
    checkpoints = config['trainer']['checkpoint_dir'] or str(layout.artifacts / 'Trainer' / 'checkpoints')
    train, val = (
        [os.path.join(places['examples'], f'Split-{split}', '*')]
        for split in (features.TRAIN_SPLIT, features.VAL_SPLIT)
    )
    return {
        'custom_config': {**config, 'trainer': {**config['trainer'], 'checkpoint_dir': checkpoints}},
        'train_files': train,
        'eval_files': val,
        'transform_graph_path': places['transform_graph'],
        'schema_path': str(next(Path(places['schema']).glob('*.pbtxt'))),
        'base_model': saved_model and str(saved_model.parent),
        'hyperparameters': json.loads(Path(chosen.uri, BEST_FILE).read_text()) if chosen else None,
    }
