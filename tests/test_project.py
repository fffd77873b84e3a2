"""One version everywhere, and the files that people and tools look for."""

import re
import subprocess
import sys
from pathlib import Path

import hybrid_backbones

ROOT = Path(__file__).parents[1]
VERSION = hybrid_backbones.__version__


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding='utf-8')


def test_the_version_is_that_of_the_changelog_and_the_citation():
    assert re.findall(r'^## (.+)$', read('CHANGELOG.md'), re.MULTILINE)[0] == VERSION
    assert re.findall(r'^version: (.+)$', read('CITATION.cff'), re.MULTILINE) == [VERSION]


def test_setup_reads_the_version():
    command = [sys.executable, 'setup.py', '--version']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == VERSION


def test_links_of_the_documentation_lead_somewhere():
    pages = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').rglob('*.md')]
    for page in pages:
        text = page.read_text(encoding='utf-8')
        for target, anchor in re.findall(r'\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)', text):
            path = page.parent / target if target else page
            assert path.exists(), f'{page.name}: {target}'
            if anchor:
                headings = re.findall(r'^#+ (.+)$', path.read_text(encoding='utf-8'), re.MULTILINE)
                slugs = {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}
                assert anchor in slugs, f'{page.name}: {target}#{anchor}'
