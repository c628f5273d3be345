"""Configs in checkpoints are read, and never executed."""

import math
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.utils import get_installed_path

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.literal_config import parse_config

ROOT = Path(__file__).parents[2]
OURS = sorted((ROOT / 'configs').glob('*/*.py'))
MMDET = [
    'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'albu_example/mask-rcnn_r50_fpn_albu-1x_coco.py',
    'v3det/faster_rcnn_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py',
    'glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py',
]
LAZY = """
from mmdet.models import ResNet
from torch.optim import SGD
from torchvision.ops import nms
model = dict(type=ResNet, depth=18, nms=dict(type=nms), scales=[(1, 2)] * 3)
optimizer = dict(type=SGD, lr=1e-3, betas=(0.9, float('inf')))
"""


def dumps():
    folder = Path(get_installed_path('mmdet'), '.mim', 'configs')
    yield from OURS[:: max(len(OURS) // 3, 1)]
    yield from (folder / name for name in MMDET)


@pytest.mark.parametrize('path', [*dumps()], ids=lambda path: path.stem)
def test_what_mmengine_writes_is_read_as_mmengine_reads_it(path):
    check_dump(path)


def test_a_config_of_classes(tmp_path):
    (tmp_path / 'lazy.py').write_text(LAZY)
    check_dump(tmp_path / 'lazy.py')


def check_dump(path):
    text = Config.fromfile(path, import_custom_modules=False).pretty_text
    executed: dict = {}
    exec(text, {'inf': math.inf}, executed)
    assert parse_config(text) == executed
    assert Config(parse_config(text)).pretty_text == text


MMDET1 = """
'''Written by hand, for mmdet 1.x.'''
# model settings
norm = dict(mean=[123.675, 116.28], to_rgb=True)
root = 'data/coco/'
pipeline = [dict(type='Normalize', **norm), {'type': 'Pad', **{'a-b': -1}}]
data = dict(batch=2 * 4, train=dict(ann=root + 'x.json', pipeline=pipeline))
lr = 0.02 / 8 - 1
scales = [8] * 2 + [float('inf'), -inf]
names = list(('a', 'b')), tuple(), {1, 2}, set(), None, ..., b'x'
"""


def test_names_of_the_text_itself():
    assert parse_config(MMDET1) == dict(
        norm=dict(mean=[123.675, 116.28], to_rgb=True),
        root='data/coco/',
        pipeline=[
            dict(type='Normalize', mean=[123.675, 116.28], to_rgb=True),
            {'type': 'Pad', 'a-b': -1},
        ],
        data=dict(
            batch=8,
            train=dict(
                ann='data/coco/x.json',
                pipeline=[
                    dict(
                        type='Normalize', mean=[123.675, 116.28], to_rgb=True
                    ),
                    {'type': 'Pad', 'a-b': -1},
                ],
            ),
        ),
        lr=0.02 / 8 - 1,
        scales=[8, 8, math.inf, -math.inf],
        names=(['a', 'b'], (), {1, 2}, set(), None, ..., b'x'),
    )


@pytest.mark.parametrize(
    'line',
    [
        "open('proof', 'w')",
        "a = open('proof', 'w')",
        "a = dict(b=[open('proof', 'w')])",
        "a = __import__('os').system('touch proof')",
        "a = f'{open}'",
        'a = lambda: 1',
        'a = [x for x in (1,)]',
        'a = (b := 1)',
        'a = dict.__class__',
        'a = ().__class__',
        'a = unknown',
        'a = 1 if 2 else 3',
        'a.b = 1',
        'a, b = 1, 2',
        'a: int = 1',
        'import os',
        'from os import system',
        'def a(): pass',
        'class A: pass',
        'if True: a = 1',
        "with open('proof', 'w'): pass",
        "_base_ = ['/etc/hostname.py']",
        "a = '%s' % 1",
        'a = 9 ** 9 ** 9',
        "a = 'a' * 10000000000",
        'a = {[]: 1}',
        'a = dict(**1)',
        'a = 1 / 0',
        "a = float('a')",
    ],
)
def test_anything_else_is_refused_by_its_line(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = f'line 3, .{re.escape(line[:5])}.*--trust-config'
    with pytest.raises(LongTailError, match=message) as error:
        parse_config(f'a = dict(\n    b=1)\n{line}\n')
    assert '\n' not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'text',
    [
        'not python',
        'a = "\0"',
        'a = "\ud800"',
        'a = ' + '[' * 500 + ']' * 500,
        'a = ' + '-' * 100_000 + '1',
        'a = ' + '+'.join(['1'] * 10_000),
        'a = [1]\n' + 'a = a + a\n' * 60,
        'a = [1]\n' + 'a = [a, a]\n' * 60,
        'a = 2\n' + 'a = a * a\n' * 60,
        f'a = {"x" * 99_999!r}\nb = [a] * 99_999\n',
    ],
    ids=lambda text: text[:12],
)
def test_no_text_exhausts_the_machine(text):
    with pytest.raises(LongTailError):
        parse_config(text)
