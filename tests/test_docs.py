"""The documents agree with the code: their commands, settings, paths and links.

tests/pipeline/test_run.py runs the commands.
"""

import re
import shlex
import subprocess

import pytest
import yaml

from components.errors import UsageError
from pipeline.__main__ import build_parser
from pipeline.config import PRESETS
from pipeline.overrides import apply_overrides, list_fields
from tests.documents import DOCUMENTS, PROJECT, list_anchors, list_blocks, list_commands, read_prose

README = PROJECT / 'README.md'
LANGUAGES = ('sh', 'text', 'mermaid')
COMMANDS = ('python -m', 'make', 'docker', 'kubectl', 'curl', 'source')  # what a command in these documents begins with
PACKAGES = ('benchmarks', 'components', 'docs', 'kubeflow', 'pipeline', 'tests', 'trainer')
each_document = pytest.mark.parametrize('document', DOCUMENTS, ids=lambda document: document.name)


def list_project_files() -> list[str]:
    """The files that git knows or would add, as paths in the project."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard']
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (PROJECT / name).exists()]


@each_document
def test_every_command_is_in_a_block_that_the_tests_read(document):
    for block in list_blocks(document):
        where = f'{block.document}:{block.line}'
        assert block.language in LANGUAGES, f'{where} has the language {block.language!r}'
        if block.language != 'sh':
            assert not [line for line in block.lines if line.startswith(COMMANDS)], f'{where} holds a command'


@each_document
def test_a_block_that_is_not_run_says_why_or_names_a_test_that_runs_it(document):
    for block in list_blocks(document):
        if block.note is not None:
            where, names = f'{block.document}:{block.line}', re.findall(r'tests/[\w/]+(?:\.py)?', block.note)
            assert re.match(r'not run by the tests: \S|run by tests/\S+\.py', block.note), f'{where}: {block.note}'
            assert all((PROJECT / name).exists() for name in names), f'{where}: {block.note}'


def test_most_commands_of_the_pipeline_are_run():
    commands = [command for command in list_commands() if command.text.startswith('python -m pipeline ')]
    run = {command.text.split()[3] for command in commands if command.note is None}
    assert run == {
        *('--help', 'batch', 'compare', 'compile', 'data', 'doctor', 'gc', 'lint', 'predict', 'promote', 'prune'),
        *('rollback', 'run', 'runs', 'versions'),
    }


def test_each_command_of_the_pipeline_can_be_parsed(capsys):
    commands = [command for command in list_commands() if command.text.startswith('python -m pipeline ')]
    assert commands
    for command in commands:
        arguments = shlex.split(command.text)[3:]
        try:
            build_parser().parse_args(arguments)
        except SystemExit:
            assert '--help' in arguments, f'{command.where}: {capsys.readouterr().err}'


def test_the_list_of_commands_is_whole_and_its_options_exist():
    (block,) = [block for block in list_blocks(PROJECT / 'docs' / 'configuration.md') if block.language == 'text']
    listed = re.split(r'\n(?=\S)', '\n'.join(block.lines))
    # argparse has no public way to list commands and options.
    (parsers,) = [action.choices for action in build_parser()._actions if action.choices]
    assert {line.split()[0] for line in listed} == set(parsers)
    for line in listed:
        options = set(re.findall(r'--[a-z-]+', line))
        assert options <= {name for action in parsers[line.split()[0]]._actions for name in action.option_strings}


def test_each_make_target_exists():
    targets = re.findall(r'^([a-z-]+):', (PROJECT / 'Makefile').read_text(), flags=re.MULTILINE)
    texts = [command.text for command in list_commands()]
    texts += re.findall(r'`(make [a-z][^`]*)`', ''.join(map(read_prose, DOCUMENTS)))
    named = {text.split()[1] for text in texts if text.startswith('make ')}
    assert {'run', 'test', 'test-fast', 'lint', 'lock'} <= named
    assert named <= set(targets)


def list_settings(text: str) -> list[str]:
    """Settings with their section, and with a value where one is given, such as 'trainer.batch_size=64'."""
    sections = dict.fromkeys(key.partition('.')[0] for key in list_fields(PRESETS['cifar10']('/root')) if '.' in key)
    return re.findall(rf'(?:--set |`)((?:{"|".join(sections)})\.[a-zA-Z_.]*[a-z_](?:=[^\s`]+)?)(?=[\s`])', text)


@each_document
def test_each_setting_is_accepted(document):
    config = PRESETS['cifar10']('/root')
    keys = list_fields(config)
    for setting in list_settings(document.read_text()):
        key, equals, _ = setting.partition('=')
        if equals:
            try:
                apply_overrides(config, [setting])
            except UsageError as error:
                pytest.fail(f'{document.name}: {setting}: {error}')
        else:
            assert key in keys or key in ('kubeflow.default', 'kubeflow.steps'), f'{document.name}: {setting}'


def test_the_documents_name_settings_of_every_section():
    found = {setting.partition('.')[0] for document in DOCUMENTS for setting in list_settings(document.read_text())}
    assert found == {'trainer', 'tuner', 'export', 'gate', 'data_gate', 'serving_check', 'sample', 'beam', 'kubeflow'}


def test_the_presets_are_those_that_exist():
    rows = re.findall(r'^\| `([a-z0-9-]+)` \|', (PROJECT / 'docs' / 'configuration.md').read_text(), flags=re.MULTILINE)
    assert rows[: len(PRESETS)] == list(PRESETS)
    named = {name for document in DOCUMENTS for name in re.findall(r'--preset ([a-z0-9-]+)', document.read_text())}
    assert named <= set(PRESETS)


@each_document
def test_each_path_of_the_project_exists(document):
    pattern = rf'`((?:{"|".join(PACKAGES)})/[\w./-]*|[\w./-]+\.(?:py|toml|txt))`'
    for name in re.findall(pattern, read_prose(document)):
        is_there = (PROJECT / name).exists() or any(path.endswith(f'/{name}') for path in list_project_files())
        assert is_there or name.endswith(('labels.txt', 'NAME.py')), f'{document.name} names {name}'


@each_document
def test_each_link_leads_somewhere(document):
    for target in re.findall(r'\]\(([^)\s]+)\)', read_prose(document)):
        if target.startswith('https://'):
            continue
        path, _, anchor = target.partition('#')
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f'{document.name} links to {target}'
        assert not anchor or anchor in list_anchors(file), f'{document.name} links to {target}'


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r'\]\((docs/[a-z-]+\.md)', README.read_text()))
    assert linked == {file.relative_to(PROJECT).as_posix() for file in (PROJECT / 'docs').glob('*.md')}


def test_the_readme_fits_two_screens():
    lines = README.read_text().splitlines()
    assert len(lines) <= 130
    assert max(map(len, lines)) <= 100


def read_tree() -> set[str]:
    """The paths that the README's tree shows; folders end in a slash."""
    (block,) = [block for block in list_blocks(README) if block.lines[0].startswith('.ci/')]
    paths, parent = set(), ''
    for line in block.lines:
        name = line.split()[0]
        if line.startswith(' '):
            paths.add(parent + name)
        else:
            parent = name
            paths.add(name)
    return paths


def test_the_tree_in_the_readme_is_the_real_one():
    shown = read_tree()
    opened = {path.partition('/')[0] for path in shown if path.count('/') == 2}
    real = set()
    for name in list_project_files():
        first, *rest = name.split('/')
        if rest:
            real.add(f'{first}/')
        elif not first.startswith('.') and first != 'LICENSE' and not first.endswith('.md'):
            real.add(first)
        if len(rest) > 1 and first in opened:
            real.add(f'{first}/{rest[0]}/')
    assert shown == real
    assert {'components', 'kubeflow'} <= opened


def test_the_changelog_has_the_version():
    (version,) = re.findall(r"version='([^']+)'", (PROJECT / 'setup.py').read_text())
    assert f'\n## [{version}]' in (PROJECT / 'CHANGELOG.md').read_text()
    assert '\n## [Unreleased]\n' in (PROJECT / 'CHANGELOG.md').read_text()


def test_the_commit_hooks_download_nothing():
    (repository,) = yaml.safe_load((PROJECT / '.pre-commit-config.yaml').read_text())['repos']
    assert repository['repo'] == 'local'
    assert {hook['language'] for hook in repository['hooks']} == {'system'}


def test_the_workflow_runs_what_every_ci_runs():
    workflow = yaml.safe_load((PROJECT / '.github' / 'workflows' / 'ci.yml').read_text())
    (job,) = workflow['jobs'].values()
    assert job['steps'][-1]['run'] == 'bash .ci/run'


@pytest.mark.parametrize('name', ['components/data/x.py', 'tests/components/data/x.py', 'docs/data.md'])
def test_git_ignores_the_readmes_data_folder_and_no_other(name):
    ignored = ['git', 'check-ignore', '--quiet', '--no-index']
    assert subprocess.run([*ignored, 'data/cifar10/train/x'], cwd=PROJECT, check=False).returncode == 0
    assert subprocess.run([*ignored, name], cwd=PROJECT, check=False).returncode == 1
