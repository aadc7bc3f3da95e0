"""Errors that a user can cause or fix. The command line prints their message and exits with their `exit_code`."""


def to_one_line(error: BaseException, limit: int = 300) -> str:
    """Makes one line of an error's text, for use inside a message of ours.

    Args:
      error: any error, such as a library's.
      limit: characters after which the text is cut off.

    Returns:
      The text with every run of spaces and line breaks as one space; the error's type when it has no text.
    """
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f'{text[:limit]}...'


class PipelineError(Exception):
    """The base of all our errors; the message says what went wrong, where, and what to do."""

    exit_code = 1


class UsageError(PipelineError):
    """The command line or the configuration asks for something impossible."""

    exit_code = 2


class DataError(PipelineError):
    """Data breaks the data contract; the message says which file, which record, and what was found."""


class DataRefusedError(DataError):
    """The data gate refuses the data."""

    exit_code = 4


class StorageError(PipelineError):
    """Storage fails: a full disk, a locked or damaged metadata store, an object store that cannot be reached.

    The message says it all, so that nobody needs to read the log.
    """


class WeightsError(PipelineError):
    """Pretrained weights cannot be obtained, or do not fit the model."""


class TrainingError(PipelineError):
    """Training cannot go on, for example because the loss is not a number."""


class ExportError(PipelineError):
    """A trained model cannot be exported in a form that may be served."""
