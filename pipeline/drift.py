"""The `drift` command: are the images that a version is asked about still like those it was tested with?

Each property's distribution over the requests is compared with that over the version's test images, in the way that
Rabanser et al. 2019 ("Failing Loudly") found to work best: a two-sample Kolmogorov-Smirnov test for each property, with
Bonferroni's correction. As with enough images every difference is significant, a difference must be large, too: its
Kolmogorov-Smirnov distance must reach the bound that the data gate has for the shares of classes. The shares of the
predicted classes are compared as TFDV compares those of labels, by their largest difference (L-infinity distance).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from components.contract import DataContract
from components.data_gate.config import DataGateConfig
from components.errors import UsageError
from components.model_contract import read_model_contract
from components.places import Place
from components.serving.reference import CONFIDENCE, Reference, read_reference
from components.serving.versions import REFERENCE_FILE, STABLE, Version, list_versions
from pipeline.image_sizes import is_tiny, is_too_small
from pipeline.request_log import RequestLog, read_log
from pipeline.server.request_sample import AskedImage

EXIT_DRIFT = 3  # as of `run`, where a bound was not kept either
LEAST_IMAGES = 400  # with fewer, chance alone makes distances as large as the usual bound
SIGNIFICANCE = 0.01  # chance of a false alarm, over all comparisons together
SHARES = 'predicted classes'
_WORDS = {
    'brightness': ('images are darker', 'images are brighter'),
    'contrast': ('images have less contrast', 'images have more contrast'),
    'sharpness': ('images are more blurred', 'images are sharper'),
    CONFIDENCE: ('the model is less sure', 'the model is surer'),
}
_SIZES = ('width', 'height')
_COMPARISONS = len(_WORDS) + 1

Values = npt.NDArray[np.float64]
Verdict = Literal['drift', 'no drift', 'too few']


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A property of the requests against that of the test images.

    property: of `components.image_statistics.PROPERTIES`, CONFIDENCE, or SHARES.
    distance: the Kolmogorov-Smirnov distance, for SHARES the L-infinity distance; both 0-1.
    bound: the least distance that counts as drift: the larger one of the data gate's bound and what chance explains.
    is_drift: whether the property has drifted.
    requests, reference: the medians; for SHARES the shares of the class with the largest difference.
    sentence: what has changed, in words.
    """

    property: str
    distance: float
    bound: float
    is_drift: bool
    requests: float
    reference: float
    sentence: str


@dataclasses.dataclass(frozen=True)
class Drift:
    """What the command found.

    version: number of the version.
    images: how many of its images were compared.
    first, last: when the first and the last of them was answered; '' if the log does not tell.
    verdict: 'too few' stands for fewer than LEAST_IMAGES.
    sentence: the verdict in words.
    comparisons: of all properties; empty if there are too few images.
    notes: what else is worth knowing, a sentence each.
    """

    version: int
    images: int
    first: str
    last: str
    verdict: Verdict
    sentence: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


def find_version(serving: Place, number: int | None, label: str | None) -> Version:
    """Finds a version by its number or its version label; by neither, the stable one or else the newest.

    Raises:
      UsageError: there is no such version.
    """
    versions = list_versions(serving)
    if number is not None:
        found = [each for each in versions if each.number == number]
    elif label is not None:
        found = [each for each in versions if label in each.labels]
    else:
        found = [each for each in versions if STABLE in each.labels] or versions[-1:]
    if not found:
        labelled = f'version with the label {label}' if label else 'version'
        wanted = labelled if number is None else f'version {number}'
        raise UsageError(f'{serving} has no {wanted}; `python -m pipeline versions` lists those that there are.')
    return found[0]


def _read_reference(version: Version) -> Reference:
    file = version.folder / REFERENCE_FILE
    if not file.exists():
        raise UsageError(
            f'version {version.number} does not say what its test images look like ({REFERENCE_FILE} is missing), '
            'because an earlier release pushed it; push a new version with `python -m pipeline run`.'
        )
    try:
        return read_reference(file)
    except ValueError as error:
        raise UsageError(f'{file} is damaged ({error}); push a new version with `python -m pipeline run`.') from error


def measure_drift(serving: Place, requests: str, number: int | None, label: str | None) -> Drift:
    """Compares what a version was asked with its test images.

    Args:
      serving: the folder of versions.
      requests: see `pipeline.request_log.find_files`.
      number, label: see `find_version`.

    Raises:
      UsageError: there is no such version or log, or the version has no reference.
    """
    version = find_version(serving, number, label)
    reference = _read_reference(version)
    kept_settings = (version.info.get('settings') or {}).get('data_gate') or {}
    bound = float(kept_settings.get('max_drift', DataGateConfig().max_drift))
    contract = read_model_contract(version.folder)
    log = read_log(requests, version.number, contract.image_size)
    return judge(version.number, contract, reference, log, bound)


def judge(version: int, contract: DataContract, reference: Reference, log: RequestLog, bound: float) -> Drift:
    """Compares the images of a log with a version's reference.

    Args:
      version: its number.
      contract: its class names and image size.
      reference: what its test images look like.
      log: what it was asked.
      bound: the least distance that counts, 0-1.
    """
    images = [image for image in log.images if image.statistics['brightness'] is not None]
    times = sorted(image.time for image in images if image.time)
    first, last = (times[0], times[-1]) if times else ('', '')
    notes = [*_describe_undecoded(len(log.images), len(images)), *log.faults]
    if len(images) < LEAST_IMAGES:
        others = ', '.join(
            f'{count:,} by {f"version {other}" if other is not None else "a version that the log does not name"}'
            for other, count in log.counts.items()
            if other != version and count
        )
        sentence = (
            f'too few images to tell: version {version} answered {len(images):,} of those in the log, and at least '
            f'{LEAST_IMAGES} are needed' + (f' (the others were answered: {others})' if others else '')
        )
        return Drift(version, len(images), first, last, 'too few', sentence, (), tuple(notes))
    comparisons = [_compare_property(name, reference, _get_values(name, images), bound) for name in _WORDS]
    comparisons.append(_compare_shares(contract, reference, images, bound))
    known = tuple(each for each in comparisons if each is not None)
    notes = [*_describe_sizes(contract, reference, images, bound), *notes]
    drifted = [each for each in sorted(known, key=lambda each: -each.distance) if each.is_drift]
    if drifted:
        sentence = (
            f'drifted: {_join([each.sentence for each in drifted])}; label some of these images and retrain with them'
        )
        return Drift(version, len(images), first, last, 'drift', sentence, known, tuple(notes))
    seen = max(each.bound for each in known)
    sentence = f'no drift found on {len(images):,} images; a distance of {seen:.2f} or more would have been seen'
    return Drift(version, len(images), first, last, 'no drift', sentence, known, tuple(notes))


def _join(sentences: Sequence[str]) -> str:
    """Joins what has changed; of several things about images in a row, 'images' is said once."""
    text = sentences[0]
    for before, sentence in itertools.pairwise(sentences):
        is_same = before.startswith('images ') and sentence.startswith('images ')
        text += f', {sentence.removeprefix("images ")}' if is_same else f', and {sentence}'
    return text


def _describe_undecoded(total: int, decoded: int) -> list[str]:
    missing = total - decoded
    return [f'{missing:,} of {total:,} images could not be decoded or are too large to be measured'] if missing else []


def _get_values(name: str, images: Sequence[AskedImage]) -> Values:
    """Returns a property of all images that have it."""
    if name == CONFIDENCE:
        return np.array([max(image.probabilities) for image in images if image.probabilities], np.float64)
    values = (image.statistics[name] for image in images)
    return np.array([value for value in values if value is not None], np.float64)


def _find_critical(count: int, reference: int) -> float:
    """Returns the Kolmogorov-Smirnov distance that chance reaches in one of 1 / SIGNIFICANCE checks at most."""
    limit = stats.kstwobign.isf(SIGNIFICANCE / _COMPARISONS)
    return float(limit * np.sqrt((count + reference) / (count * reference)))


def _compare_property(name: str, reference: Reference, values: Values, bound: float) -> Comparison | None:
    """Compares a property by the Kolmogorov-Smirnov distance; None if one side does not have it."""
    quantiles = np.array(reference.quantiles.get(name, ()))
    if not len(values) or not len(quantiles):
        return None
    distance = float(stats.ks_2samp(quantiles, values, method='asymp').statistic)
    least = max(bound, _find_critical(len(values), reference.count))
    sentence = _describe_change(name, quantiles, values)
    medians = float(np.median(values)), float(np.median(quantiles))
    return Comparison(name, distance, least, distance >= least, *medians, sentence)


def _format(value: float) -> str:
    return f'{value:,.0f}' if abs(value) >= 10 else f'{value:.2f}'


def _describe_change(name: str, quantiles: Values, values: Values) -> str:
    """Says how a property has changed: its middle, or, where that has stayed, its spread."""
    median, (low, middle, high) = float(np.median(values)), np.quantile(quantiles, (0.4, 0.5, 0.6))
    if name in _WORDS and not low <= median <= high:
        words = _WORDS[name][int(median > middle)]
        return f'{words} ({name} median {_format(median)} where the test images had {_format(float(middle))})'
    ends = [[_format(float(end)) for end in np.quantile(side, (0.05, 0.95))] for side in (values, quantiles)]
    (now_low, now_high), (low_end, high_end) = ends
    return f'{name} is spread differently (90% between {now_low} and {now_high}, test images {low_end} and {high_end})'


def _compare_shares(
    contract: DataContract, reference: Reference, images: Sequence[AskedImage], bound: float
) -> Comparison | None:
    """Compares the shares of the predicted classes; chance is excluded by the chi-squared test of homogeneity."""
    labels = [image.label for image in images if 0 <= image.label < contract.num_classes]
    now = np.bincount(labels, minlength=contract.num_classes)
    before = np.array(reference.predicted)
    if not now.sum() or not before.sum():
        return None
    shares, usual = now / now.sum(), before / before.sum()
    label = int(np.abs(shares - usual).argmax())
    distance = float(abs(shares - usual)[label])
    asked = (now + before) > 0
    is_chance = asked.sum() < 2 or (
        stats.chi2_contingency([now[asked], before[asked]]).pvalue > SIGNIFICANCE / _COMPARISONS
    )
    name = contract.class_names[label]
    sentence = f'{shares[label]:.0%} are called {name} where {usual[label]:.0%} of the test images were'
    is_drift = distance >= bound and not is_chance
    return Comparison(SHARES, distance, bound, is_drift, float(shares[label]), float(usual[label]), sentence)


def _describe_sizes(
    contract: DataContract, reference: Reference, images: Sequence[AskedImage], bound: float
) -> list[str]:
    """Says that the images are of other sizes; that is no drift by itself, because the model resizes every image.

    A model that was trained with photographs is asked about photographs: only images that must be enlarged are unlike
    them.
    """
    sizes = [_compare_property(name, reference, _get_values(name, images), bound) for name in _SIZES]
    known = [each for each in sizes if each is not None]
    if not any(each.is_drift for each in known):
        return []
    now, before = ('x'.join(f'{getattr(each, side):.0f}' for each in known) for side in ('requests', 'reference'))
    shorter_side = min(each.requests for each in known)
    if not is_tiny(contract.image_size) and not is_too_small(shorter_side, contract.image_size):
        return []
    seen = f'{contract.image_size}x{contract.image_size}'
    return [
        f'the images are of other sizes, in the median {now} where the test images had {before}; the model sees them '
        f'resized to {seen}, and its accuracy on such images was not measured'
    ]


def describe_drift(drift: Drift) -> list[str]:
    """Puts it into lines: what was compared, the verdict, a table of the properties, and the notes."""
    first, last = drift.first[:10], drift.last[:10]
    period = f' from {first} to {last}' if first != last else f' on {first}' if first else ''
    lines = [f'version {drift.version}, {drift.images:,} images{period}', drift.sentence]
    if drift.comparisons:
        lines += ['', f'{"":<18}{"requests":>10}{"test":>10}{"distance":>10}{"bound":>8}']
    for each in drift.comparisons:
        values = [f'{each.requests:.0%}', f'{each.reference:.0%}']
        if each.property != SHARES:
            values = [_format(each.requests), _format(each.reference)]
        mark = '  drift' if each.is_drift else ''
        lines.append(f'{each.property:<18}{values[0]:>10}{values[1]:>10}{each.distance:>10.2f}{each.bound:>8.2f}{mark}')
    return [*lines, *(['', *(f'note: {note}' for note in drift.notes)] if drift.notes else [])]


def to_dict(drift: Drift) -> dict[str, Any]:
    """Returns it as JSON can hold it."""
    return dataclasses.asdict(drift)
