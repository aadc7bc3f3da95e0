"""The `batch` command: predicts any number of images with a pushed model on Beam, and can be stopped and resumed."""

import time
from typing import Any, NamedTuple

from components.errors import PipelineError, UsageError, to_one_line
from components.places import Place, explain_errors
from components.progress import track
from pipeline.batch import results
from pipeline.batch.results import Format, ShardCounts
from pipeline.batch.shards import Input, count_items
from pipeline.config import BeamConfig
from pipeline.engines import explain_worker_failure


class Outcome(NamedTuple):
    """What a batch prediction did."""

    predicted: int
    """Images with a prediction, those of earlier attempts included."""
    dead_letters: int
    """Records and files without one."""
    finished_before: int
    """Shards that an earlier attempt had finished."""
    shards: int
    """Shards in all."""
    seconds: float
    """How long this attempt took."""
    new: int
    """Records and files that this attempt predicted or refused."""

    def to_sentence(self, out: Place) -> str:
        """Says it in words."""
        parts = [f'{self.predicted:,} images predicted in {self.shards:,} shards']
        if self.finished_before:
            parts.append(f'{self.finished_before:,} of them finished before')
        if self.new:
            parts.append(f'{self.new / self.seconds:.1f} images/s')
        letters = f'{self.dead_letters:,} dead letters'
        if self.dead_letters:
            letters += ', with reasons in dead-letters-*.jsonl'
        return f'{", ".join(parts)}; {letters}; results in {out}'


def predict_batch(version: Place, asked: Input, source: str, out: Place, form: Format, beam: BeamConfig) -> Outcome:
    """Predicts what is not predicted yet, and writes the manifest.

    Args:
      version: folder of the version that predicts.
      asked: from `pipeline.batch.shards.find_input`.
      source: --input, for the manifest.
      out: folder of the results; what an earlier attempt finished in it is kept.
      form: of the predictions.
      beam: how Beam runs.

    Raises:
      UsageError: `out` holds something else, or results of another model, input or format.
      PipelineError: Beam could not do it.
    """
    from pipeline.batch.inference import PROGRESS, run_pipeline

    begin = time.monotonic()
    model: dict[str, Any] = {'folder': str(version), 'version': int(version.name) if version.name.isdigit() else None}
    asked_for = {'model': model, 'input': source, 'input_digest': asked.digest, 'format': form}
    with explain_errors(out):
        _check_out(out, asked_for)
        results.write_manifest(out, {'asked': asked_for, 'shards': len(asked.shards)})
        before = {shard: results.read_finished(out, shard) for shard in asked.shards}
    left = [shard for shard, counts in before.items() if counts is None]
    if left:
        with track(PROGRESS, sum(map(count_items, left))):
            try:
                run_pipeline(left, str(version), model, str(out), form, beam.options)
            except PipelineError:
                raise
            except Exception as error:  # Beam wraps what a worker raised in errors of any type
                raise explain_worker_failure(error, beam.args) or PipelineError(
                    f'Beam stopped: {to_one_line(error)[:300]}. What is finished is kept; run the same command again '
                    'to go on.'
                ) from error
    counts = [results.read_finished(out, shard) for shard in asked.shards]
    done = [each for each in counts if each is not None]
    new = [each for shard, each in zip(asked.shards, counts, strict=True) if each and before[shard] is None]
    outcome = Outcome(
        predicted=sum(each.predicted for each in done),
        dead_letters=sum(each.dead_letters for each in done),
        finished_before=len(asked.shards) - len(left),
        shards=len(asked.shards),
        seconds=time.monotonic() - begin,
        new=sum(map(sum, new)),
    )
    if len(done) < len(asked.shards):
        missing = len(asked.shards) - len(done)
        raise PipelineError(
            f'Beam ended without an error, but {missing:,} of {len(asked.shards):,} shards are not in {out}; check '
            'that the workers can write there, and run the same command again.'
        )
    results.write_manifest(
        out, {'asked': asked_for, 'shards': len(done), **ShardCounts(outcome.predicted, outcome.dead_letters)._asdict()}
    )
    return outcome


def _check_out(out: Place, asked: dict[str, Any]) -> None:
    manifest = results.read_manifest(out)
    if manifest is None:
        out.mkdir(parents=True, exist_ok=True)
        return
    earlier = manifest['asked']
    for key in ('model', 'input', 'format'):
        if earlier.get(key) != asked[key]:
            raise UsageError(
                f'{out} holds results of another {key} ({earlier.get(key)}); choose a different --out, or remove it.'
            )
    if earlier.get('input_digest') != asked['input_digest']:
        raise UsageError(f'{asked["input"]} has changed since {out} was begun; choose a different --out, or remove it.')
