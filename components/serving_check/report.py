"""What the serving check found: the bounds and faults in words, and the file that keeps them."""

import json
import os
from dataclasses import asdict
from typing import Any, NamedTuple

import tensorflow as tf

from components.reasons import Reason, list_broken

REPORT_FILE = 'report.json'  # in the InfraBlessing artifact, a ServingReport

# By metric. Those with a sign are bounds, the others faults, which a model may have none of.
_SENTENCES = {
    'size': 'model size {value:,.0f} MB {sign} {bound:,.0f} MB',
    'memory': 'peak memory {value:,.0f} MB {sign} {bound:,.0f} MB',
    'latency': 'p99 of single images {value:,.1f} ms {sign} {bound:,.1f} ms over {count:,} requests',
    'difference': '{slice} differs from training by {value:.3f} {sign} {bound:.3f} on {count:,} images',
    'load': 'the model cannot be loaded: {detail}',
    'process': 'the process that asks the model {detail}',
    'missing': 'there is no signature {slice}',
    'error': '{slice} fails on a batch of {count:,}: {detail}',
    'form': '{slice} answers a batch of {count:,} with {detail}',
    'finite': '{slice} gives {value:,.0f} of {count:,} images no numbers',
    'sum': '{slice} gives {value:,.0f} of {count:,} images probabilities that do not sum to 1',
    'label': '{slice} gives {value:,.0f} of {count:,} images another label than the most probable one',
    'class_name': "{slice} gives {value:,.0f} of {count:,} images another name than their class's",
    'broken': 'a broken image got {detail} from {slice}',
    'after_broken': 'after a broken image {slice} fails on a good one: {detail}',
    'server': 'TensorFlow Serving: {detail}',
}


def make_reason(metric: str, slice: str, value: float, bound: float, count: int, detail: str = '') -> Reason:
    """A bound, or a fault, of which a model may have none.

    Args:
      metric: key of _SENTENCES.
      slice: a signature, or '' for the whole model.
      value, bound: in the metric's unit; the value must not be over the bound. A fault's bound is 0.
      count: what was asked: images or requests.
      detail: of a fault, in words.
    """
    is_kept = value <= bound  # a value that is not a number keeps none
    sign = '<=' if is_kept else '>'
    sentence = _SENTENCES[metric].format(slice=slice, value=value, bound=bound, count=count, detail=detail, sign=sign)
    return Reason(metric, slice, value, bound, count, is_kept, sentence)


class ServingReport(NamedTuple):
    """All that was found."""

    is_blessed: bool
    """Whether every bound is kept and there is no fault."""
    reasons: tuple[Reason, ...]
    """The bounds, kept or not, and the faults."""
    size_mb: float
    """Megabytes of the SavedModel's files."""
    memory_mb: float | None
    """Megabytes at the peak of the process that asked; None where it did not come to its end."""
    load_s: float | None
    """Seconds to load the model, TensorFlow's import not counted; None where it could not be."""
    p50_ms: float | None
    """Median milliseconds of a single image through serving_default; None where that has a fault."""
    p99_ms: float | None
    """What 99% of them take at most."""
    differences: dict[str, float]
    """Mean total variation distance from the trained network's probabilities, by signature without a fault."""
    images: int
    """Recorded images that were asked with."""
    server: str
    """Which TensorFlow Serving was asked as well, or why none."""
    seconds: float
    """That the whole check took."""

    def to_sentence(self) -> str:
        """Such as 'p50 38 ms, p99 45 ms, 102 MB, 0.9 GB memory: servable', or why not."""
        if not self.is_blessed:
            return f'{"; ".join(list_broken(self.reasons))}: not servable'
        figures = f'p50 {self.p50_ms:.0f} ms, p99 {self.p99_ms:.0f} ms, {self.size_mb:.0f} MB'
        return f'{figures}, {self.memory_mb / 1000:.1f} GB memory, {self.server}: servable'


def write_report(blessing_uri: str, report: ServingReport) -> None:
    """Writes REPORT_FILE into an InfraBlessing artifact."""
    content: dict[str, Any] = {**report._asdict(), 'reasons': [asdict(reason) for reason in report.reasons]}
    with tf.io.gfile.GFile(os.path.join(blessing_uri, REPORT_FILE), 'w') as file:
        json.dump(content, file, indent=2)


def read_report(blessing_uri: str) -> ServingReport:
    """What `write_report` wrote."""
    with tf.io.gfile.GFile(os.path.join(blessing_uri, REPORT_FILE)) as file:
        content = json.load(file)
    return ServingReport(**{**content, 'reasons': tuple(Reason(**reason) for reason in content['reasons'])})
