"""The Beam pipeline of a batch prediction: RunInference on shards, each of which is written as soon as it is predicted.

A shard is one element, so that nothing is held back until all are predicted: what a killed run has written stays.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from components.places import locate
from components.progress import advance_tracked
from pipeline.batch.results import DeadLetter, Format, Predicted, write_shard
from pipeline.batch.shards import Item, Shard, read_items
from pipeline.classifier import Classifier, Refusal
from pipeline.local_model import load_model

PROGRESS = 'batch prediction'


class Answers(NamedTuple):
    """What a model says of a shard."""

    predicted: list[Predicted]
    dead: list[DeadLetter]


def predict_shard(shard: Shard, classifier: Classifier) -> Answers:
    """Reads and predicts a shard. A few batches at a time are in memory."""
    answers = Answers([], [])
    with ThreadPoolExecutor(classifier.concurrency) as pool:
        batches = _cut(read_items(shard), classifier.batch_size)
        while group := list(itertools.islice(batches, classifier.concurrency)):
            for batch, found in zip(group, pool.map(lambda items: _classify(items, classifier), group), strict=True):
                answers.predicted.extend(found.predicted)
                answers.dead.extend(found.dead)
                advance_tracked(PROGRESS, len(batch))
    return answers


def _cut(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _classify(items: list[Item], classifier: Classifier) -> Answers:
    answers = Answers([], [])
    found = iter(classifier.classify([item.image for item in items if not item.fault]))
    for item in items:
        answer = Refusal(item.fault) if item.fault else next(found)
        if isinstance(answer, Refusal):
            answers.dead.append(DeadLetter(item, answer.reason))
        else:
            answers.predicted.append(Predicted(item, answer.label, answer.class_name, answer.probabilities))
    return answers


class ShardHandler(ModelHandler[Shard, PredictionResult, Classifier]):
    """Predicts one shard at a time with a version of a serving folder.

    Args:
      version: path or URI of the version's folder, which every worker must be able to read.
    """

    def __init__(self, version: str):
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._version = version

    def load_model(self) -> Classifier:
        """Loads the version; once in a process."""
        return load_model(locate(self._version))

    def run_inference(
        self, batch: Sequence[Shard], model: Classifier, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        """Predicts the shards of a batch, which is one."""
        return [PredictionResult(shard, predict_shard(shard, model)) for shard in batch]


def run_pipeline(
    shards: Sequence[Shard], version: str, model: dict[str, Any], out: str, form: Format, args: Sequence[str]
) -> None:
    """Predicts shards, and writes each into a folder.

    Args:
      shards: what to predict.
      version: path or URI of the version's folder.
      model: see `pipeline.batch.results.write_shard`.
      out: path or URI of the folder of the results, which every worker must be able to write to.
      form: of the predictions.
      args: Beam's pipeline options.
    """

    def write(result: PredictionResult) -> None:
        answers: Answers = result.inference
        write_shard(locate(out), result.example, answers.predicted, answers.dead, model, form)

    with beam.Pipeline(options=PipelineOptions(list(args))) as pipeline:
        _ = (
            pipeline
            | 'Shards' >> beam.Create(list(shards))
            | 'Spread' >> beam.Reshuffle()
            | 'Predict' >> RunInference(ShardHandler(version))
            | 'Write' >> beam.Map(write)
        )
