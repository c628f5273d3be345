"""Each tool ends in one line where it cannot write."""

import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny import CLASS_NAMES, write_two_stages
from tool_runs import refused

from mmdet_longtail.cli.main import COMMANDS, EDIT_CLASSIFIER

RESULTS = 'r.bbox.json'
READ_ONLY = ('check', 'classifier-log')
FILES = ('--ann', 'data/val.json', '--train', 'data/train.json')
ARGUMENTS = {
    'statistics': [
        ['data/train.json', '--out', 'file/s.json'],
        ['data/train.json', '--plot', 'file/s.png'],
    ],
    'evaluate': [
        [RESULTS, *FILES, '--json', 'file/m.json'],
        [RESULTS, *FILES, '--per-class', 'file/m.csv'],
    ],
    'compare': [
        [RESULTS, RESULTS, *FILES, '--json', 'file/c.json'],
        [RESULTS, RESULTS, *FILES, '--plot', 'file/c.png'],
    ],
    'show': [[RESULTS, *FILES, '--images', 'data/images', '--out', 'file/s']],
    'report': [[RESULTS, *FILES, '--out', 'file/report.html']],
    'gains': [['a=sweep.csv', '--control', 'a', '--out', 'file/g.png']],
    'score-thresholds': [[RESULTS, *FILES[:2], '--out', 'file/t.json']],
    'predict': [['c.pth', 'data/images', '--out', 'file/p']],
    'ensemble': [
        [
            *(RESULTS, RESULTS, '--ann', 'data/val.json', '--map', 'map.csv'),
            *('--expert-ann', 'data/val.json', '--out', 'file/e.json'),
        ]
    ],
    'make-config': [
        [
            *('data', '--train', 'train.json', '--val', 'val.json'),
            *('--method', 'bags', '--out', 'file/c.py'),
        ]
    ],
    'train': [['softmax.py', '--work-dir', 'file/w']],
    'test': [
        ['softmax.py', 'c.pth', '--work-dir', 'file/w'],
        ['softmax.py', 'c.pth', '--json', 'file/m.json'],
        ['softmax.py', 'c.pth', '--out', 'file/r'],
    ],
    'two-stage': [['bags.py', '--work-dir', 'file/w']],
    'ablate': [['softmax.py', '--work-dir', 'file/w']],
    'demo': [['--work-dir', 'file/w']],
    'analyze': [['softmax.py', 'c.pth', '--out', 'file/a']],
    'convert': [['c.pth', 'softmax.py', 'file/c.pth']],
    'calibrate': [
        [
            *('softmax.py', 'c.pth', 'file/c.pth'),
            *('--method', 'norcal', '--strength', '1'),
        ]
    ],
    'nearest-class-mean': [['softmax.py', 'c.pth', 'file/c.pth']],
    'make-glyphs': [['--out', 'file/g']],
    'clothing-co-parsing': [['clone', 'file/c']],
    'make-coco-lt': [['data/train.json', 'selection.json', 'file/lt']],
    'merge': [
        [
            *('data/train.json', 'data/val.json', '--map', 'map.csv'),
            *('--out', 'file/m.json'),
        ]
    ],
    'keep-tail': [['data/train.json', 'file/t.json', '--fewer-than', '3']],
    'mobilenet-v2': [['file/m.pth', 'a.whl']],
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = write_two_stages(tmp_path_factory.mktemp('run'))
    val = json.loads((folder / 'data/val.json').read_text())
    keys = ('image_id', 'category_id', 'bbox')
    results = [
        {key: annotation[key] for key in keys} | {'score': 0.9}
        for annotation in val['annotations']
    ]
    (folder / RESULTS).write_text(json.dumps(results))
    names = '\n'.join(f'{name},{name}' for name in CLASS_NAMES)
    (folder / 'map.csv').write_text(f'extra,main\n{names}\n')
    chosen = {'category_id': 1, 'instance_count': 1, 'image_ids': [1]}
    (folder / 'selection.json').write_text(
        json.dumps({'categories': [chosen]})
    )
    config = Config.fromfile(folder / 'softmax.py')
    init_default_scope('mmdet')
    model = MODELS.build(config.model)
    meta = {
        'cfg': config.pretty_text,
        'dataset_meta': {'classes': CLASS_NAMES},
    }
    state = {'state_dict': model.state_dict(), 'meta': meta}
    torch.save(state, folder / 'c.pth')
    (folder / 'sweep.csv').write_text(
        'config,seed,bbox_APr,bbox_APc,bbox_APf\n'
        'a.py,0,0.1,0.2,0.3\nb.py,0,0.1,0.2,0.3\n'
    )
    (folder / 'file').write_text('a file, not a folder')
    return folder


def test_no_command_is_missing():
    # fold writes as nearest-class-mean does, and needs another checkpoint.
    assert {*COMMANDS} - {*ARGUMENTS} == {*READ_ONLY, 'fold'}


@pytest.mark.parametrize(
    ('command', 'arguments'),
    [(name, case) for name, cases in ARGUMENTS.items() for case in cases],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_a_path_below_a_file(command, arguments, folder, call_tool):
    tool = COMMANDS[command]
    first = [command] if tool == EDIT_CLASSIFIER else []
    line = refused(call_tool(tool, *first, *arguments, cwd=folder))
    assert 'file' in line
