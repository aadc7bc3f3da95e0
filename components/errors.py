"""Errors a user can cause. The command line prints them as one sentence and exits with `exit_code`."""


def to_one_line(error: BaseException, limit: int = 300) -> str:
    """A library's error as part of our sentence: one line of some `limit` characters, its type if it says nothing."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f'{text[:limit]}...'


class PipelineError(Exception):
    """What went wrong, where, and what to do, in one sentence that a user can act on."""

    exit_code = 1


class UsageError(PipelineError):
    """The command line or the configuration asks for something that cannot be."""

    exit_code = 2


class DataError(PipelineError):
    """Bytes that are not what the data contract says: which file, which record, what was found."""


class DataRefusedError(DataError):
    """Data that the data gate refuses."""

    exit_code = 4


class StorageError(PipelineError):
    """A full disk, a locked or damaged metadata store, an object store out of reach; a log would add nothing."""


class WeightsError(PipelineError):
    """Pretrained weights that could not be had, or do not fit the model."""


class TrainingError(PipelineError):
    """Training that cannot go on, such as a loss that is not a number."""


class ExportError(PipelineError):
    """A trained model that must not be served as it would be exported."""
