"""The pages of the site that are not in `docs`: a hook of MkDocs, named by mkdocs.yml.

README.md is the front page, beside CONTRIBUTING.md and CHANGELOG.md. `reference/` has a page for each package, made of
the docstrings of its modules; mkdocstrings reads them without importing the code.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_PROJECT = Path(__file__).parents[1]
_DOCUMENTS = {'README.md': 'index.md', 'CONTRIBUTING.md': 'CONTRIBUTING.md', 'CHANGELOG.md': 'CHANGELOG.md'}
"""Documents of the project by their path, and the pages that they become."""
_FILES = {'LICENSE': 'LICENSE.txt'}  # files that a document links to and that are no pages
_PACKAGES = ('pipeline', 'components', 'trainer', 'kubeflow')
_LINK = re.compile(r'(?<=\]\()(?!https?:|#)([^)#\s]+)')


def _move_links(text: str) -> str:
    """Makes the links of a document that stands beside the folder `docs` right for a page within it."""
    names = _DOCUMENTS | _FILES
    return _LINK.sub(lambda link: names.get(link[1], link[1].removeprefix('docs/')), text)


def _describe_package(package: str) -> str:
    """Makes the reference of a package: a heading, and a part for each of its modules that has public names."""
    lines = [f'# The package `{package}`', '']
    for file in sorted((_PROJECT / package).rglob('*.py')):
        has_public_names = re.search(r'^(?:class|def) [A-Za-z]', file.read_text(), flags=re.MULTILINE)
        if has_public_names:
            module = '.'.join(file.relative_to(_PROJECT).with_suffix('').parts).removesuffix('.__init__')
            lines += [f'::: {module}', '']
    return '\n'.join(lines)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for source, page in _DOCUMENTS.items():
        files.append(File.generated(config, page, content=_move_links((_PROJECT / source).read_text())))
    for source, target in _FILES.items():
        files.append(File.generated(config, target, abs_src_path=str(_PROJECT / source)))
    for package in _PACKAGES:
        files.append(File.generated(config, f'reference/{package}.md', content=_describe_package(package)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links of `docs` to the documents beside it into links to their pages."""
    for source, target in _DOCUMENTS.items():
        markdown = markdown.replace(f'](../{source}', f']({target}')
    return markdown
