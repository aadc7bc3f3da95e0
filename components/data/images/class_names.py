"""The names of classes: which are refused, and in which order they get their labels.

Called by `components.data.images.listing` and `labels_csv`.
"""

import unicodedata
from collections.abc import Iterable

from components.errors import DataError

_NAMED = 5  # names that a message lists


def join_names(names: Iterable[str]) -> str:
    """Joins the first few names for a message: 'a, b, c and 3 more'."""
    listed = list(names)
    rest = f' and {len(listed) - _NAMED:,} more' if len(listed) > _NAMED else ''
    return ', '.join(listed[:_NAMED]) + rest


def make_class_names(names: Iterable[str], where: str) -> dict[str, str]:
    """Checks the names of classes, and gives each its Unicode form NFC, in the order of the labels.

    Args:
      names: as they stand in a folder or a file; may repeat.
      where: what an error message calls that place.

    Raises:
      DataError: a name has a line break, or is not UTF-8, or two names differ only in upper and lower case or in how an
        accent is written, or there are fewer than two.
    """
    made: dict[str, str] = {}
    alike: dict[str, str] = {}
    for name in sorted(set(names)):
        normal = unicodedata.normalize('NFC', name)
        if len(name.splitlines()) != 1 or not is_utf8(name):
            raise DataError(
                f'{where} has the class {name!r}; the name of a class is one line of UTF-8 text: rename the class.'
            )
        other = alike.setdefault(normal.casefold(), name)
        if other != name:
            raise DataError(
                f'{where} has the classes {other!r} and {name!r}, which differ only in upper and lower case or in how '
                'an accent is written; give them the same name, or different ones.'
            )
        made[name] = normal
    if len(made) < 2:
        found = f'only the class {next(iter(made))!r}' if made else 'no class'
        raise DataError(f'{where} has {found}; a classifier needs at least two classes.')
    return dict(sorted(made.items(), key=lambda item: item[1]))


def is_utf8(name: str) -> bool:
    """Whether the name of a file or a class is text, as records and reports need it."""
    try:
        name.encode()
    except UnicodeEncodeError:  # Python reads other bytes of a file's name as lone surrogates
        return False
    return True
