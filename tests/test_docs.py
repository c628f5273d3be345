"""The code blocks of README and docs run, from the top of a page to its end.

A comment above a block names what it needs and is not here, one of NEEDS;
such a block is compiled, and the options of its commands are looked up.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.models import MobileNetV2
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny import make_data, write_config
from tool_runs import environment, run_tool

from mmdet_longtail.apis.fork_server import ForkServer
from mmdet_longtail.cli.main import COMMANDS
from mmdet_longtail.testing.glyphs import GlyphSettings, make_glyphs

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').rglob('*.md')),
]
ABOVE = 'the blocks above'
"""Of a Python block: it goes on from those, so test_page alone runs it."""
NEEDS = (
    ABOVE,
    'Slurm',
    'network',
    'another environment',  # that make or pip sets up
    'other data',
    'time',  # more than two minutes on two cores
)
TARGETS = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M)
SHARED_OPTIONS = ''.join(
    path.read_text() for path in (ROOT / 'mmdet_longtail/cli').glob('*.py')
)
# A name in capitals, or a variable, stands for what a user has.
PLACEHOLDER = re.compile(r'\$|[A-Z_]{3,}')
STAND_INS = {
    'CONFIG': 'mine.py',
    'CHECKPOINT': 'work_dirs/mine/epoch_12.pth',
}
PLACEHOLDERS = re.compile(rf'(?<![\w$])({"|".join(STAND_INS)})\b(?!=)')
PRELUDE = r"""
set -e
python() { printf 'python'; printf '\t%s' "$@"; echo; }
longtail() {
    # The default, R50 at 1333 px with weights from the web, is for a GPU.
    if [ "$1" = make-config ]; then set -- "$@" --small --epochs 1; fi
    python "$MAIN" "$@"
}
"""
"""What prints the commands of a page, for one process that runs all."""
GLYPHS = 'faster-rcnn_r18_fpn_{}_glyphs'


def blocks_of(page):
    """The blocks of a page: what each needs, its language and its text."""
    return re.findall(
        r'(?:<!-- needs: (.*) -->\n)?^```(python|bash)\n(.*?)^```',
        page.read_text(),
        re.M | re.S,
    )


def blocks(language):
    """The blocks of a language, each with its page and number."""
    return [
        pytest.param(text, needs, id=f'{page.relative_to(ROOT)}-{number}')
        for page in PAGES
        for number, (needs, text) in enumerate(
            (needs, text)
            for needs, spoken, text in blocks_of(page)
            if spoken == language
        )
    ]


def pages():
    """The pages with a block that test_page alone runs."""
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in PAGES
        if any(
            needs == ABOVE or (language == 'bash' and not needs)
            for needs, language, _ in blocks_of(page)
        )
    ]


@pytest.mark.parametrize('text, needs', blocks('python'))
def test_python(text, needs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = DefaultScope.overwrite_default_scope('mmdet')
    if '_base_' in text:
        (tmp_path / 'configs').symlink_to(ROOT / 'configs')
        (tmp_path / 'config.py').write_text(text)
        with torch.device('meta'), scope:
            MODELS.build(Config.fromfile('config.py').model)
    elif needs:
        compile(text, 'block', 'exec')
    else:
        exec(text, {})


def test_needs():
    for page in PAGES:
        marked = re.findall(r'<!-- needs(.*)-->\n(.*)', page.read_text())
        for needs, fence in marked:
            assert needs.removeprefix(': ').rstrip() in NEEDS, page
            assert fence in ('```python', '```bash'), page


@pytest.mark.parametrize('text, needs', blocks('bash'))
def test_commands(text, needs):
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


@pytest.fixture(scope='module')
def stranger(tmp_path_factory):
    """The folder of a stranger: a checkout, data, and trained detectors."""
    folder = tmp_path_factory.mktemp('docs')
    for name in ('configs', 'tools'):
        (folder / name).symlink_to(ROOT / name)
    mine = make_data(folder / 'data/mine', num_train=12, num_val=4)
    (mine / 'annotations').mkdir()
    for name, split in dict(train='train', val='val', held_out='val').items():
        shutil.copy(mine / f'{split}.json', mine / f'annotations/{name}.json')
    shutil.copytree(mine / 'images', folder / 'photos')
    (folder / 'more').mkdir()
    for name in ('more/a.png', 'photos/a.jpg'):
        shutil.copy(mine / 'images/val_0.png', folder / name)
    write_config(folder / 'mine.py', Path('data/mine'))
    weights = {'state_dict': MobileNetV2().state_dict()}
    torch.save(weights, folder / 'data/mobilenet_v2.pth')
    options = (
        'train_cfg.max_epochs=12',
        'train_cfg.val_interval=12',
        'optim_wrapper.optimizer.lr=0.05',  # enough to find the objects
    )
    run_tool('train.py', 'mine.py', '--cfg-options', *options, cwd=folder)
    out = ('--out', 'results/mine')
    run_tool('test.py', *STAND_INS.values(), *out, cwd=folder)
    make_glyphs(folder / 'data/glyphs', GlyphSettings(num_images=200))
    val = folder / 'data/glyphs/annotations/val.json'
    content = json.loads(val.read_text())
    content['images'] = content['images'][:8]
    kept = {image['id'] for image in content['images']}
    content['annotations'] = [
        a for a in content['annotations'] if a['image_id'] in kept
    ]
    val.write_text(json.dumps(content))
    few = ('--cfg-options', 'train_dataloader.dataset.indices=8')
    for name in ('softmax', 'bags-classifier'):
        config = f'configs/glyphs/{GLYPHS.format(name)}.py'
        run_tool('train.py', config, *few, cwd=folder)
    return folder


def commands_of(page, folder):
    """The arguments of python in the blocks of a page that need nothing.

    The shell runs what is no command of Python, and Python's own blocks
    become files.
    """
    script, program = PRELUDE, ''
    for number, (needs, language, text) in enumerate(blocks_of(page)):
        if language == 'bash' and not needs:
            script += PLACEHOLDERS.sub(lambda found: STAND_INS[found[0]], text)
        elif language == 'python' and '_base_' not in text:
            if needs in ('', ABOVE):
                program += text
            if needs == ABOVE:
                (folder / f'block_{number}.py').write_text(program)
                script += f'python block_{number}.py\n'
    variables = {
        'MAIN': str(ROOT / 'mmdet_longtail/__main__.py'),
        'PATH': f'{BIN}:{os.environ["PATH"]}',
    }
    process = subprocess.run(
        ['bash', '-c', script],
        cwd=folder,
        env=environment() | variables,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    lines = [line.split('\t') for line in process.stdout.splitlines()]
    return [words for first, *words in lines if first == 'python']


@pytest.mark.slow
@pytest.mark.parametrize('page', pages())
def test_page(page, stranger, tmp_path, monkeypatch):
    folder = tmp_path / 'folder'
    shutil.copytree(stranger, folder, symlinks=True)
    commands = commands_of(page, folder)
    monkeypatch.chdir(folder)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with ForkServer() as server:
        for command in commands:
            with server.started(command):
                output = ''.join(server.stdout)
            assert server.returncode == 0, (command, output)
