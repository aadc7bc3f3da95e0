"""The documents, read for the tests: their code blocks, commands, settings and links.

A block of commands has the language `sh`. If it cannot be run by tests/pipeline/test_run.py, an HTML comment directly
before it says why, or names the test that runs it instead.
"""

import itertools
import re
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[1]
DOCUMENTS = (
    PROJECT / 'README.md',
    PROJECT / 'CONTRIBUTING.md',
    PROJECT / 'CHANGELOG.md',
    *sorted((PROJECT / 'docs').glob('*.md')),
)
_NOTE = re.compile(r'<!-- (.*) -->')


class Block(NamedTuple):
    """A fenced code block.

    document: the file's path in the project.
    line: the number of the line with the opening fence.
    language: such as 'sh'; '' if the fence names none.
    lines: the content.
    note: the text of the HTML comment directly before the block; None if there is none.
    """

    document: str
    line: int
    language: str
    lines: tuple[str, ...]
    note: str | None


class Command(NamedTuple):
    """One command of an `sh` block; lines that end in a backslash are joined.

    where: the document and the block's line, such as 'docs/data.md:12'.
    text: what a shell takes.
    note: the block's note; None if the command has to be run as it is.
    """

    where: str
    text: str
    note: str | None


def list_blocks(document: Path) -> list[Block]:
    """The code blocks of a document, in their order."""
    blocks = []
    lines = document.read_text().splitlines()
    fences = [number for number, line in enumerate(lines) if line.startswith('```')]
    for begin, end in zip(fences[::2], fences[1::2], strict=True):
        note = _NOTE.fullmatch(lines[begin - 1]) if begin else None
        blocks.append(
            Block(
                document.relative_to(PROJECT).as_posix(),
                begin + 1,
                lines[begin].removeprefix('```'),
                tuple(lines[begin + 1 : end]),
                note and note[1],
            )
        )
    return blocks


def list_commands() -> list[Command]:
    """The commands of all documents, in the order of DOCUMENTS."""
    commands = []
    for block in itertools.chain.from_iterable(map(list_blocks, DOCUMENTS)):
        if block.language == 'sh':
            text = '\n'.join(block.lines).replace('\\\n', ' ')
            commands += [
                Command(f'{block.document}:{block.line}', line, block.note) for line in text.split('\n') if line
            ]
    return commands


def read_prose(document: Path) -> str:
    """A document without the content of its code blocks."""
    return re.sub(r'^```.*?^```$', '', document.read_text(), flags=re.MULTILINE | re.DOTALL)


def list_anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r'^#+ (.*)$', read_prose(document), flags=re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}
