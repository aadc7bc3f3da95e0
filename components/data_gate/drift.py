"""Compares the data of a run with the data of the model that is serving, by TFDV's statistics of both."""

import hashlib
from collections.abc import Iterator

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components import features
from components.contract import DataContract
from components.data_gate.config import DataGateConfig
from components.data_gate.findings import Finding
from components.places import Place
from components.serving.likeness import HOW_TO_PUSH, ServingClasses, find_unlike_version
from components.serving.versions import STATISTICS_FOLDER, find_serving_version, read_info

Statistics = dict[str, statistics_pb2.DatasetFeatureStatisticsList]


def _read_files(statistics: Place) -> dict[str, bytes]:
    """Reads each split's file, in the order of the splits, from an ExampleStatistics artifact or a copy of one."""
    return {split: (statistics / f'Split-{split}' / 'FeatureStats.pb').read_bytes() for split in features.SPLITS}


def read_statistics(statistics: Place) -> Statistics:
    """Reads TFDV's statistics by split."""
    parse = statistics_pb2.DatasetFeatureStatisticsList.FromString
    return {split: parse(content) for split, content in _read_files(statistics).items()}


def find_serving_statistics(serving: Place) -> Place | None:
    """Finds the statistics of the serving model's data; None when no model is serving, or it has no statistics."""
    version = find_serving_version(serving)
    folder = version and version / STATISTICS_FOLDER
    return folder if folder and folder.is_dir() else None


def identify_serving_data(serving: Place, statistics: Place, contract: DataContract) -> str:
    """Identifies the serving model's data, as far as a run's own is compared with it, for the cache key.

    Args:
      serving: the folder of versions.
      statistics: of this run's data.
      contract: of this run's data.

    Returns:
      the version's number and 'unlike' if the serving version has other classes or another image size; else SHA-256 of
      its statistics in hex; '' when it has none. Once this run's own model is serving, which its statistics tell, what
      was returned before it was pushed.
    """
    unlike = find_unlike_version(serving, contract)
    if unlike is not None:
        return f'{unlike.number} unlike'
    before = find_serving_statistics(serving)
    files = _read_files(before) if before else None
    if files is None:
        return ''
    if files == _read_files(statistics):
        version = find_serving_version(serving)
        number = read_info(version).get('unlike') if version else None
        return '' if number is None else f'{number} unlike'
    return hashlib.sha256(b''.join(files.values())).hexdigest()


def judge_serving_classes(serving: Place, contract: DataContract, serving_classes: ServingClasses) -> Finding | None:
    """Finds that the serving version has other classes, or another image size, than this run's data.

    Args:
      serving: the folder of versions.
      contract: of this run's data.
      serving_classes: whether that is an error ('same'), or only a warning ('any').
    """
    unlike = find_unlike_version(serving, contract)
    if unlike is None:
        return None
    severity = 'error' if serving_classes == 'same' else 'warning'
    found = f'version {unlike.number} of {serving} has {unlike.describe_difference(contract)}'
    expected = f'{contract.describe()}, as in the data of this run'
    if serving_classes == 'same':
        expected += f'; {HOW_TO_PUSH}'
    return Finding(severity, 'unlike_serving', 'serving', '', expected, found, 0)


def _count(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> int:
    return int(statistics.datasets[0].num_examples)


def find_changes(
    now: Statistics, before: Statistics, schema: schema_pb2.Schema, config: DataGateConfig
) -> Iterator[Finding]:
    """Finds splits that shrank, and drift of the class shares of train (TFDV's comparator, L-infinity distance).

    Args:
      now: statistics of this run's data.
      before: statistics of the serving model's data.
      schema: the curated schema.
      config: the bounds.
    """
    for split in features.SPLITS:
        count, wanted = _count(now[split]), _count(before[split])
        if count < (1 - config.max_shrink) * wanted:
            found, expected = f'{count:,} records', f'about {wanted:,}, as in the data of the serving model'
            yield Finding('error', 'shrink', split, '', expected, found, count)
    compared = schema_pb2.Schema()
    compared.CopyFrom(schema)
    tfdv.get_feature(compared, features.LABEL_KEY).drift_comparator.infinity_norm.threshold = config.max_drift
    train = features.TRAIN_SPLIT
    anomalies = tfdv.validate_statistics(now[train], compared, previous_statistics=before[train])
    for reason in anomalies.anomaly_info[features.LABEL_KEY].reason:
        if reason.type == anomalies_pb2.AnomalyInfo.COMPARATOR_L_INFTY_HIGH:
            found = reason.description.rstrip('.')
            expected = 'the class shares of the data of the serving model'
            yield Finding('error', 'drift', train, features.LABEL_KEY, expected, found, _count(now[train]))
