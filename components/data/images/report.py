"""What became of each file, as `files.csv` in the data folder, and in a few lines for the terminal.

Called by `components.data.images.dataset` and `pipeline.data`.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from components import features
from components.data.images.convert import Converted
from components.data.images.listing import ImageFile, Skipped

FILES_NAME = 'files.csv'  # in the data folder
_NAMED = 10  # files that a message lists
_CLASSES = 10  # whose counts the closing lines show
_REASONS = 3  # the commonest, that the closing lines show
_RESIZED = re.compile(r'\d+x\d+ to \d+x\d+')


class Row(NamedTuple):
    """A row of files.csv; its fields are the columns. image is the path below the folder, sizes are in pixels."""

    image: str
    class_name: str
    split: str
    width: int
    height: int
    stored_width: int
    stored_height: int
    sha256: str
    outcome: str
    reason: str

    @classmethod
    def make(cls, file: ImageFile, converted: Converted) -> 'Row':
        """Makes the row of a file that was read; its split is given to it later."""
        sizes = (*converted.size, *converted.stored_size)
        return cls(file.name, file.class_name, '', *sizes, converted.sha256, converted.outcome, converted.reason)

    @classmethod
    def make_skipped(cls, skipped: Skipped) -> 'Row':
        """Makes the row of a file that was not read."""
        return cls(skipped.name, '', '', 0, 0, 0, 0, '', 'skipped', skipped.reason)


def make_files_csv(rows: Sequence[Row]) -> str:
    """Makes the text of files.csv, sorted by the path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow('class' if field == 'class_name' else field for field in Row._fields)
    writer.writerows(sorted(rows))
    return text.getvalue()


def describe_refusals(refused: Sequence[Row]) -> str:
    """Lists the first few files that are refused, each on a line with the reason."""
    lines = [f'{row.image}: {row.reason}' for row in sorted(refused)[:_NAMED]]
    return 'The first are:\n' + '\n'.join(lines) if len(refused) > _NAMED else 'They are:\n' + '\n'.join(lines)


def _summarize_reasons(rows: Sequence[Row]) -> str:
    """Names the commonest reasons, of each the part before its colon: '20 resized, 3 grey to RGB'."""
    reasons = Counter(
        'resized' if _RESIZED.fullmatch(part) else part.partition(':')[0]
        for row in rows
        for part in (row.reason.split(', ') if row.outcome == 'converted' else [row.reason])
    )
    named = [f'{count:,} {reason}' for reason, count in reasons.most_common(_REASONS)]
    return ', '.join([*named, '...'] if len(reasons) > _REASONS else named)


def describe_dataset(rows: Sequence[Row], class_names: Sequence[str]) -> list[str]:
    """Says in a few lines how many pictures of each class each split has, and what was done with the files."""
    counts = Counter((row.class_name, row.split) for row in rows if row.split)
    lines = [
        f'{name}: ' + ', '.join(f'{counts[name, split]:,} {split}' for split in features.SPLITS)
        for name in class_names[:_CLASSES]
    ]
    if len(class_names) > _CLASSES:
        lines.append(f'and {len(class_names) - _CLASSES:,} more classes')
    for outcome in ('stored', 'converted', 'skipped', 'refused'):
        found = [row for row in rows if row.outcome == outcome]
        if found:
            reasons = f' ({_summarize_reasons(found)})' if outcome != 'stored' else ' as they are'
            lines.append(f'{len(found):,} {outcome}{reasons}')
    return lines
