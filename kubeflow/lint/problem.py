"""Problem: one finding of the linter. Every rule yields them, and `python -m pipeline lint` prints one on each line."""

from typing import Literal, NamedTuple


class Problem(NamedTuple):
    """Something in a package that the server would refuse, drop or ignore.

    severity: 'error' for what the server refuses, drops silently or fails on; 'warning' for what the server accepts but
      the author hardly meant.
    where: the path in the document, such as 'root.dag.tasks.Trainer'.
    what: a sentence that says what is wrong.
    mend: a sentence that says what to do about it.
    """

    severity: Literal['error', 'warning']
    where: str
    what: str
    mend: str
