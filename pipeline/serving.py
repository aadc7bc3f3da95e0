"""The commands on a serving folder: which versions it holds, and which of them serves."""

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from components.contract import DataContract, parse_contract
from components.data import cifar10
from components.onnx_model import OnnxReport
from components.places import Place
from components.serving import version_labels, versions
from components.serving.versions import Version
from pipeline.overrides import flatten_settings, list_changes

_WIDTH = 80  # columns
_INDENT = ' ' * 4
_LOCAL_RUN = re.compile(r'\d{8}-\d{6}')  # the id of a local run is the name of its log file; Kubeflow's ids differ
_LISTINGS = {'listed': 'listed in models.config', 'unlisted': 'not listed in models.config'}


def _describe_data(data: dict[str, Any]) -> str:
    source = data.get('source')
    if not source:
        return f'data: {data["folder"]}' if 'folder' in data else 'data: unknown'
    if source['kind'] == 'sample':
        return f'data: embedded sample (drawn with {source["name"]})'
    return f'data: {source["kind"]} {source["name"]}'


def _describe_change(version: Version, before: Version | None) -> str:
    """Names the settings that differ from those of an earlier version; '' if there is nothing to compare."""
    if before is None or not version.info.get('settings'):
        return ''
    new, old = (flatten_settings(each.info['settings']) for each in (version, before))
    changes = list_changes(new, old)
    if not changes:
        return f'settings: the same as those of version {before.number}'
    return f'settings that differ from version {before.number}: {", ".join(changes)}'


def _read_contract(info: dict[str, Any]) -> DataContract:
    """Returns the classes of a version; those of one that does not say them are CIFAR-10's, as it is an older one."""
    return parse_contract(info['contract']) if 'contract' in info else cifar10.CONTRACT


def _describe(version: Version, before: Version | None, *, with_classes: bool) -> Iterator[str]:
    """Describes a version in paragraphs.

    Args:
      version: to describe.
      before: the last version before it that has settings; None if there is none.
      with_classes: whether to say its classes.
    """
    status = ', '.join(version.labels) or _LISTINGS.get(version.listing, version.listing)
    yield f'{version.number}  {status}'
    info = version.info
    if not info:
        yield 'not pushed by this pipeline'
        return
    yield f'accuracy {info["accuracy"]:.3f} on {info["images"]:,} images, pushed {info["pushed"]}'
    run, pipeline = info.get('run'), info.get('pipeline') or (info.get('settings') or {}).get('name')
    parts = [run and f'run {run}', pipeline and f'pipeline {pipeline}']
    if run and _LOCAL_RUN.fullmatch(run):
        parts.append(f'log logs/{run}.log')
    yield ', '.join(part for part in parts if part)
    yield _describe_data(info.get('data') or {})
    if with_classes:
        yield _read_contract(info).describe()
    if info.get('onnx'):
        yield OnnxReport(**info['onnx']).describe()
    yield _describe_change(version, before)


def describe_versions(serving: Place) -> list[str]:
    """Describes each version in several lines of at most 80 columns, the oldest version first.

    The classes are said only if they are not the same for all of them.

    Returns:
      The lines; the first line of a version starts with its number, and the others are indented.
    """
    lines, before = [], None
    listed = versions.list_versions(serving)
    contracts = [_read_contract(version.info) for version in listed if version.info]
    with_classes = any(not contract.is_like(contracts[0]) for contract in contracts)
    for version in listed:
        first, *paragraphs = _describe(version, before, with_classes=with_classes)
        lines.append(first)
        for paragraph in paragraphs:
            lines += textwrap.wrap(
                paragraph,
                _WIDTH,
                initial_indent=_INDENT,
                subsequent_indent=_INDENT * 2,
                break_long_words=False,
                break_on_hyphens=False,
            )
        if version.info.get('settings'):
            before = version
    return lines or [f'{serving} has no version yet.']


def promote(serving: Place, number: int, label: version_labels.Label, server: str | None) -> str:
    """Gives a version a version label, see `version_labels.promote`. Returns what was done, in a sentence."""
    outcome = version_labels.promote(serving, number, label, server)
    if outcome == 'listed':
        return (
            f'version {number} is listed in models.config, so that a server loads it; run the same command again when '
            'the server has loaded it, or give --server http://HOST:8501 to wait for that: TensorFlow Serving refuses '
            'a version label for a version that it has not loaded'
        )
    return f'version {number} is {label}' + (' already' if outcome == 'unchanged' else '')


def rollback(serving: Place) -> str:
    """Makes the version that was stable before stable again. Returns what was done, in a sentence."""
    good, bad = version_labels.rollback(serving)
    return f'version {good} is stable again, and version {bad} no longer is'


def prune(serving: Place, keep: int) -> str:
    """Removes old versions. Returns what was done, in a sentence."""
    removed = version_labels.prune(serving, keep)
    return f'removed {", ".join(map(str, removed))}' if removed else 'nothing to remove'
