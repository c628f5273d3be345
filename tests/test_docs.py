"""The code blocks of README and docs: Python runs, commands exist.

A block below ``<!-- needs ... -->`` reads what is not here, and is compiled.
"""

import re
import shlex
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet_longtail.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').rglob('*.md')),
]
TARGETS = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M)
SHARED_OPTIONS = ''.join(
    path.read_text() for path in (ROOT / 'mmdet_longtail/cli').glob('*.py')
)
# A name in capitals, or a variable, stands for what a user has.
PLACEHOLDER = re.compile(r'\$|[A-Z_]{3,}')


def blocks(language):
    """The blocks of a language, each with its page and number."""
    pattern = rf'(<!-- needs .* -->\n)?^```{language}\n(.*?)^```'
    return [
        pytest.param(
            text, bool(needs), id=f'{page.relative_to(ROOT)}-{number}'
        )
        for page in PAGES
        for number, (needs, text) in enumerate(
            re.findall(pattern, page.read_text(), re.M | re.S)
        )
    ]


@pytest.mark.parametrize('text, needs_more', blocks('python'))
def test_python(text, needs_more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = DefaultScope.overwrite_default_scope('mmdet')
    if '_base_' in text:
        (tmp_path / 'configs').symlink_to(ROOT / 'configs')
        (tmp_path / 'config.py').write_text(text)
        with torch.device('meta'), scope:
            MODELS.build(Config.fromfile('config.py').model)
    elif needs_more:
        compile(text, 'block', 'exec')
    else:
        exec(text, {})


@pytest.mark.parametrize('text, needs_more', blocks('bash'))
def test_commands(text, needs_more):
    text = re.sub(r' +#.*', '', text.replace('\\\n', ' '))
    for line in text.splitlines():
        words = shlex.split(line)
        while words and re.match(r'\w+=', words[0]):
            del words[0]
        if not words:
            continue
        first, *rest = words
        if first == 'make':
            assert rest[0] in TARGETS
        elif first == 'longtail' and rest[0][0] != '-':
            check_tool(ROOT / 'tools' / COMMANDS[rest[0]], rest[1:])
        elif first == 'python' and rest[0].startswith('tools/'):
            check_tool(ROOT / rest[0], rest[1:])
        elif first.startswith('tools/'):
            assert (ROOT / first).exists()


def check_tool(path, words):
    known = path.read_text() + SHARED_OPTIONS
    for word in words:
        name = re.match(r'--([a-z][\w-]*)', word)
        # Those of benchmarks are keywords.
        spelled = name and (f"'{name[0]}'", f'{name[1].replace("-", "_")}=(')
        assert not name or any(s in known for s in spelled), word
        if word.startswith('configs/') and not PLACEHOLDER.search(word):
            assert (ROOT / word).exists(), word
