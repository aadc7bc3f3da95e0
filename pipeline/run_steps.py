"""Step: a component's part in a run, with what it read and wrote by key, from ML Metadata."""

from collections.abc import Sequence
from typing import NamedTuple

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

_Event = metadata_store_pb2.Event


class Step(NamedTuple):
    """A component's part in a run."""

    component: str
    """The component's id."""
    execution: metadata_store_pb2.Execution
    """As ML Metadata has it."""
    inputs: list[metadata_store_pb2.Artifact]
    """What it read, each once."""
    outputs: dict[str, metadata_store_pb2.Artifact]
    """What it wrote, or reused, by key; each component writes one artifact for a key."""


def read_steps(store: metadata_store.MetadataStore, context_id: int) -> tuple[Step, ...]:
    """Reads the components of a run, in the order in which they began.

    Args:
      store: ML Metadata.
      context_id: of the run's context.
    """
    executions = sorted(store.get_executions_by_context(context_id), key=lambda execution: execution.id)
    events = store.get_events_by_execution_ids([execution.id for execution in executions]) if executions else []
    ids = {event.artifact_id for event in events}
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id(ids)} if ids else {}

    def find(execution_id: int, kind: int) -> list[metadata_store_pb2.Event]:
        return [each for each in events if (each.execution_id, each.type) == (execution_id, kind)]

    steps = []
    for execution in executions:
        read = dict.fromkeys(event.artifact_id for event in find(execution.id, _Event.INPUT))
        written = {_read_key(event): event.artifact_id for event in find(execution.id, _Event.OUTPUT)}
        steps.append(
            Step(
                component=execution.type.rpartition('.')[2],
                execution=execution,
                inputs=[artifacts[each] for each in read if each in artifacts],
                outputs={key: artifacts[each] for key, each in written.items() if each in artifacts},
            )
        )
    return tuple(steps)


def _read_key(event: metadata_store_pb2.Event) -> str:
    """Returns the key under which a component writes an artifact."""
    key: str = next(step.key for step in event.path.steps if step.HasField('key'))
    return key


def find_output(steps: Sequence[Step], component: str, key: str) -> metadata_store_pb2.Artifact | None:
    """Returns what a component of a run wrote under a key; None if it wrote nothing."""
    return next((step.outputs[key] for step in steps if step.component == component and key in step.outputs), None)
