"""What the serving check found: the bounds and faults in words, and the file that keeps them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from components.reasons import Reason, list_broken

REPORT_FILE = 'report.json'  # in the InfraBlessing artifact, a ServingReport

_NOT_ASKED = 'not asked: the model gate refused the model'

# By metric. Sentences with {sign} are for bounds. The others are for faults: a single one refuses the model.
_SENTENCES = {
    'size': 'model size {value:,.0f} MB {sign} {bound:,.0f} MB',
    'memory': 'peak memory {value:,.0f} MB {sign} {bound:,.0f} MB',
    'latency': 'p99 of single images {value:,.1f} ms {sign} {bound:,.1f} ms over {count:,} requests',
    'difference': '{slice} differs from training by {value:.3f} {sign} {bound:.3f} on {count:,} images',
    'load': 'the model cannot be loaded: {detail}',
    'process': 'the process that asks the model {detail}',
    'missing': 'there is no signature {slice}',
    'error': '{slice} fails on a batch of {count:,}: {detail}',
    'form': '{slice} responds to a batch of {count:,} with {detail}',
    'finite': '{slice} gives {value:,.0f} of {count:,} images values that are not numbers',
    'sum': '{slice} gives {value:,.0f} of {count:,} images probabilities that do not sum to 1',
    'label': '{slice} gives {value:,.0f} of {count:,} images a label that is not the most probable one',
    'class_name': '{slice} gives {value:,.0f} of {count:,} images a name that does not belong to their label',
    'naming': '{slice} gives {value:,.0f} of {count:,} labels a name that is not theirs',
    'broken': 'for an image that cannot be decoded, {slice} gave {detail}',
    'safe': '{slice} does not say which image of a batch cannot be decoded',
    'after_broken': 'after an image that could not be decoded, {slice} fails on a good one: {detail}',
    'server': 'TensorFlow Serving: {detail}',
}


def make_reason(metric: str, slice: str, value: float, bound: float, count: int, detail: str = '') -> Reason:
    """Makes the Reason for a bound, kept or not, or for a fault.

    Args:
      metric: key of _SENTENCES.
      slice: a signature, or '' for the whole model.
      value: what was found, in the metric's unit.
      bound: the largest value that is allowed; 0 for a fault.
      count: number of images or requests that were asked.
      detail: what is wrong, in words, for a fault.
    """
    is_kept = value <= bound  # False for a value that is not a number
    sign = '<=' if is_kept else '>'
    sentence = _SENTENCES[metric].format(slice=slice, value=value, bound=bound, count=count, detail=detail, sign=sign)
    return Reason(metric, slice, value, bound, count, is_kept, sentence)


class ServingReport(NamedTuple):
    """All that was found."""

    is_blessed: bool
    """Whether the model was asked, every bound is kept and there is no fault."""
    reasons: tuple[Reason, ...]
    """The bounds, kept or not, and the faults; empty if the model was not asked."""
    size_mb: float | None
    """Megabytes of the SavedModel's files; None if the model was not asked."""
    memory_mb: float | None
    """Peak megabytes of the process that asked; None if it did not finish."""
    load_s: float | None
    """Seconds to load the model, without TensorFlow's import; None if it could not be loaded."""
    p50_ms: float | None
    """Median milliseconds of a request with a single image through serving_default; None if that has a fault."""
    p99_ms: float | None
    """Milliseconds that 99% of those requests take at most; None if serving_default has a fault."""
    differences: dict[str, float]
    """Mean total variation distance from the trained network's probabilities, for each signature without a fault."""
    images: int
    """Number of recorded images that were asked with."""
    server: str
    """Which TensorFlow Serving was asked as well, or why none was."""
    seconds: float
    """Duration of the whole check."""
    batch_ms: dict[str, float] = {}  # noqa: RUF012  (nobody changes it)
    """Median milliseconds of a request through serving_default, by its number of images as text, as JSON has it; empty
    if serving_default has a fault, and in reports of earlier versions."""

    def to_sentence(self) -> str:
        """Says in words what was found, such as 'p50 38 ms, p99 45 ms, 102 MB, 0.9 GB memory: servable', or why not."""
        if self.size_mb is None:
            return _NOT_ASKED
        if self.p50_ms is None or self.p99_ms is None or self.memory_mb is None or not self.is_blessed:
            return f'{"; ".join(list_broken(self.reasons))}: not servable'
        figures = f'p50 {self.p50_ms:.0f} ms, p99 {self.p99_ms:.0f} ms, {self.size_mb:.0f} MB'
        return f'{figures}, {self.memory_mb / 1000:.1f} GB memory, {self.server}: servable'


def make_skipped_report() -> ServingReport:
    """Makes the report on a model that the model gate has refused, and that was not asked anything for that reason."""
    return ServingReport(
        is_blessed=False,
        reasons=(),
        size_mb=None,
        memory_mb=None,
        load_s=None,
        p50_ms=None,
        p99_ms=None,
        differences={},
        images=0,
        server=_NOT_ASKED,
        seconds=0.0,
    )


def write_report(blessing: Path, report: ServingReport) -> None:
    """Writes REPORT_FILE into the folder of an InfraBlessing artifact."""
    content: dict[str, Any] = {**report._asdict(), 'reasons': [asdict(reason) for reason in report.reasons]}
    (blessing / REPORT_FILE).write_text(json.dumps(content, indent=2))


def read_report(blessing_uri: str) -> ServingReport:
    """Reads what `write_report` wrote."""
    content = json.loads((Path(blessing_uri) / REPORT_FILE).read_text())
    return ServingReport(**{**content, 'reasons': tuple(Reason(**reason) for reason in content['reasons'])})
