"""Makes the pictures in docs/pictures from real runs: python -m docs.pictures --root DIR [--run ID].

A run of the sample preset in a terminal of 80 columns becomes run.svg; its results go into a temporary folder. The
report of a run in DIR, the newest if none is named, becomes report.webp, report-dark.webp and report-phone.webp. It
needs tmux and Chromium, which the environment does not have.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

_PROJECT = Path(__file__).parents[1]
FOLDER = _PROJECT / 'docs' / 'pictures'
_COLUMNS, _LINES = 80, 60
_SESSION = 'docs-pictures'
_RUN = 'python -m pipeline run --root runs/sample'
# That of rich without its font, which a browser would load from elsewhere.
_SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def _call(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def draw_terminal(command: str, folder: Path) -> str:
    """Runs a command in a terminal of 80 columns, and returns what the terminal shows at the end, as SVG.

    Args:
      command: what the shell takes; `python` is this one.
      folder: where it runs.
    """
    shell = (
        f'PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={_PROJECT} {command}; tmux wait-for -S {_SESSION}; cat'
    )
    size = ('-x', str(_COLUMNS), '-y', str(_LINES))
    _call('tmux', 'new-session', '-d', '-s', _SESSION, *size, '-c', str(folder), shell)
    try:
        _call('tmux', 'wait-for', _SESSION)
        shown = _call('tmux', 'capture-pane', '-e', '-p', '-t', _SESSION).rstrip()
    finally:
        _call('tmux', 'kill-session', '-t', _SESSION)
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble((f'$ {command}\n', 'bold'), Text.from_ansi(shown)))
    return console.export_svg(title=command, theme=MONOKAI, code_format=_SVG, unique_id='run')


def photograph(page: Path, out: Path, width: int, height: int, *, is_dark: bool = False) -> None:
    """Writes the top of a page as a WebP picture.

    Args:
      page: an HTML file.
      out: the picture.
      width, height: of the window, in pixels.
      is_dark: whether the browser asks for dark colours.
    """
    with tempfile.TemporaryDirectory() as temporary:
        shot = Path(temporary) / 'shot.png'
        options = (f'--window-size={width},{height}', f'--blink-settings=preferredColorScheme={0 if is_dark else 1}')
        # Without a sandbox, because the root user of a container may not make one; the page is our own.
        browser = ('chromium', '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars')
        _call(*browser, *options, f'--screenshot={shot}', page.absolute().as_uri())
        Image.open(shot).convert('RGB').save(out, quality=80, method=6)


def main(argv: list[str]) -> None:
    """Makes the pictures; see the module."""
    parser = argparse.ArgumentParser(prog='python -m docs.pictures', description=__doc__)
    parser.add_argument('--root', type=Path, required=True, help='folder of results of a run; its report is shown')
    parser.add_argument('--run', help='id of the run; without it, the newest')
    arguments = parser.parse_args(argv)
    for name in ('tmux', 'chromium'):
        if not shutil.which(name):
            parser.error(f'{name} is not installed; on Debian, run: apt-get install {name}')
    with tempfile.TemporaryDirectory() as temporary:
        page = Path(temporary) / 'report.html'
        words = ['report', '--root', arguments.root.absolute(), '--out', page]
        words += ['--run', arguments.run] if arguments.run else []
        subprocess.run((sys.executable, '-m', 'pipeline', *words), cwd=_PROJECT, check=True)
        photograph(page, FOLDER / 'report.webp', 1280, 1000)
        photograph(page, FOLDER / 'report-dark.webp', 1280, 1000, is_dark=True)
        photograph(page, FOLDER / 'report-phone.webp', 390, 844)
        (FOLDER / 'run.svg').write_text(draw_terminal(_RUN, Path(temporary)))


if __name__ == '__main__':
    main(sys.argv[1:])
