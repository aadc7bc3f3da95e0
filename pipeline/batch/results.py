"""What a batch prediction writes: for each shard the predictions, the dead letters, and that it is finished.

manifest.json                            what was asked for, and in the end what was done
predictions-00000-of-00002.parquet       or .jsonl
dead-letters-00000-of-00002.jsonl        only if there are any
finished/00000-of-00002.json             counts; written last, so a shard without it is predicted again
"""

import json
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from components import features
from components.errors import UsageError
from components.places import Place, write_place
from pipeline.batch.shards import Item, Shard

Format = Literal['parquet', 'jsonl']
MANIFEST_FILE = 'manifest.json'
_FINISHED = 'finished'


class Predicted(NamedTuple):
    """An image with the model's answer."""

    item: Item
    label: int
    class_name: str
    probabilities: list[float]


class DeadLetter(NamedTuple):
    """A record or file without a prediction. The image is not kept: it is where it was."""

    item: Item
    reason: str


class ShardCounts(NamedTuple):
    """What became of a shard."""

    predicted: int
    """Images that the model classified."""
    dead_letters: int
    """Records and files that it could not classify."""


def write_manifest(out: Place, manifest: dict[str, Any]) -> None:
    """Writes MANIFEST_FILE, whole or not at all."""
    write_place(out / MANIFEST_FILE, json.dumps(manifest, indent=2) + '\n')


def read_manifest(out: Place) -> dict[str, Any] | None:
    """Reads MANIFEST_FILE; None if `out` does not exist or is empty.

    Raises:
      UsageError: `out` holds something else.
    """
    file = out / MANIFEST_FILE
    if file.exists():
        try:
            manifest = json.loads(file.read_text())
        except ValueError:
            manifest = None
        if not isinstance(manifest, dict) or 'asked' not in manifest:
            raise UsageError(f'{file} is not the manifest of a batch prediction; choose a different --out.')
        return manifest
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f'{out} holds something else than a batch prediction; choose a different --out.')
    return None


def _finished_file(out: Place, shard: Shard) -> Place:
    return out / _FINISHED / f'{shard.name}.json'


def read_finished(out: Place, shard: Shard) -> ShardCounts | None:
    """Returns what became of a shard; None if it is not finished."""
    file = _finished_file(out, shard)
    return ShardCounts(**json.loads(file.read_text())) if file.exists() else None


def write_shard(
    out: Place, shard: Shard, predicted: list[Predicted], dead: list[DeadLetter], model: dict[str, Any], form: Format
) -> ShardCounts:
    """Writes what became of a shard; files that an earlier attempt left are replaced.

    Args:
      out: the folder of the results.
      shard: what was predicted.
      predicted: its predictions, in the order of the input.
      dead: what could not be predicted.
      model: which model has answered; Parquet files carry it as metadata of their schema, as JSON.
      form: of the predictions.
    """
    (out / _FINISHED).mkdir(parents=True, exist_ok=True)
    letters = out / f'dead-letters-{shard.name}.jsonl'
    if dead:
        write_place(letters, ''.join(json.dumps(_describe_letter(letter)) + '\n' for letter in dead))
    elif letters.exists():
        letters.unlink()
    predictions = out / f'predictions-{shard.name}.{form}'
    if form == 'jsonl':
        write_place(predictions, ''.join(json.dumps(_describe_prediction(each)) + '\n' for each in predicted))
    else:
        _write_parquet(predictions, predicted, model)
    counts = ShardCounts(len(predicted), len(dead))
    write_place(_finished_file(out, shard), json.dumps(counts._asdict()))
    return counts


def _describe_letter(letter: DeadLetter) -> dict[str, Any]:
    item = letter.item
    return {'id': item.id, 'source': item.source, 'position': item.position, 'reason': letter.reason}


def _describe_prediction(predicted: Predicted) -> dict[str, Any]:
    return {
        'id': predicted.item.id,
        features.OUTPUT_LABEL: predicted.label,
        features.OUTPUT_CLASS_NAME: predicted.class_name,
        features.OUTPUT_PROBABILITIES: [round(value, 6) for value in predicted.probabilities],
    }


def _write_parquet(place: Place, predicted: list[Predicted], model: dict[str, Any]) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]  # it has neither types nor stubs
    from pyarrow import parquet

    schema = pa.schema(
        [
            ('id', pa.string()),
            (features.OUTPUT_LABEL, pa.int64()),
            (features.OUTPUT_CLASS_NAME, pa.string()),
            (features.OUTPUT_PROBABILITIES, pa.list_(pa.float32())),
        ],
        metadata={'model': json.dumps(model)},
    )
    columns = [
        [each.item.id for each in predicted],
        [each.label for each in predicted],
        [each.class_name for each in predicted],
        [each.probabilities for each in predicted],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    if isinstance(place, Path):
        staging = place.with_name(f'.{place.name}.partial')
        parquet.write_table(table, staging)
        staging.replace(place)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / place.name
        parquet.write_table(table, file)
        place.upload_from(file, force_overwrite_to_cloud=True)
