"""RunRecord: what ML Metadata keeps of a run beside its executions, namely its settings and how it ended.

It is a custom property of the run's context, so it is still known when the run's artifacts are gone.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from components.reasons import Reason

RUN_TYPE = 'pipeline_run'  # what TFX calls the context of a run; the context's name is the run's id
_PROPERTY = 'record'


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The settings of a run, and how it ended."""

    settings: dict[str, Any]
    """Flat, such as {'trainer.epochs': 2}; empty if they are not known."""
    exit_code: int | None = None
    """The exit code; None if the run has not ended, or was killed."""
    message: str = ''
    """What came of it: the verdict, or the error's message."""
    component: str | None = None
    """The component that failed."""
    seconds: float | None = None
    """How long the run took, with the imports; None if it has not ended, or was killed."""
    reasons: tuple[Reason, ...] = ()
    """Every bound of the model gate and the serving check."""
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The Trainer's report, for a run that has ended with a verdict."""
    memory_mb: dict[str, float] = dataclasses.field(default_factory=dict)
    """Peak memory of the run's process while a component ran, in megabytes, by component; empty where the system does
    not tell."""


def open_store(file: Path, *, is_read_only: bool = False) -> metadata_store.MetadataStore:
    """Opens a root's ML Metadata.

    Args:
      file: `Layout.metadata`.
      is_read_only: raises an error instead of making a store.
    """
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(file)
    mode = metadata_store_pb2.SqliteMetadataSourceConfig
    config.sqlite.connection_mode = mode.READONLY if is_read_only else mode.READWRITE_OPENCREATE
    return metadata_store.MetadataStore(config)


def write_record(store: metadata_store.MetadataStore, run_id: str, record: RunRecord) -> None:
    """Writes a run's record, or replaces it; does nothing if no component of the run has begun."""
    context = store.get_context_by_type_and_name(RUN_TYPE, run_id)
    if context is not None:
        context.custom_properties[_PROPERTY].string_value = json.dumps(dataclasses.asdict(record))
        store.put_contexts([context])


def read_record(context: metadata_store_pb2.Context) -> RunRecord | None:
    """Reads the record in a run's context; None if there is none, such as of a run that was killed at once."""
    text = context.custom_properties[_PROPERTY].string_value if _PROPERTY in context.custom_properties else ''
    if not text:
        return None
    fields = json.loads(text)
    return RunRecord(**{**fields, 'reasons': tuple(Reason(**reason) for reason in fields['reasons'])})
