"""Both stacks load their checkpoints safely, and evaluate LVIS on numpy 2."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from tool_runs import ROOT, command, run_process
from torch.utils.data import Dataset

from mmdet_longtail import compat
from mmdet_longtail.errors import LongTailError


class Line(BaseModel):
    """Fits one number, through everything that a Runner does."""

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        loss = (self.slope(inputs) - 2 * inputs).square().mean()
        return {'loss': loss}


class Numbers(Dataset):
    METAINFO = {'classes': ('a', 'b')}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor([float(index)])


def collate(batch):
    return {'inputs': torch.stack(batch)}


def build_runner(work_dir, name, max_epochs, **kwargs):
    return Runner(
        model=Line(),
        work_dir=str(work_dir),
        # Runners of one name and second would share their logs.
        experiment_name=f'{work_dir.name}_{name}',
        train_dataloader=dict(
            dataset=Numbers(),
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=collate,
            batch_size=2,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[dict(type='EMAHook')],
        default_scope='mmdet',
        randomness=dict(seed=0),
        **kwargs,
    )


@pytest.fixture
def checkpoint_path(tmp_path):
    build_runner(tmp_path, 'first', max_epochs=2).train()
    return tmp_path / 'epoch_2.pth'


def with_numpy_names(path, old, new):
    """Rewrite a checkpoint as if another numpy had saved it."""
    rewritten = path.with_name('renamed.pth')
    with zipfile.ZipFile(path) as source:
        with zipfile.ZipFile(rewritten, 'w') as target:
            for item in source.infolist():
                content = source.read(item)
                if item.filename.endswith('data.pkl'):
                    assert old in content
                    content = content.replace(old, new)
                target.writestr(item, content)
    return rewritten


def log_history(checkpoint):
    buffer = checkpoint['message_hub']['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    return buffer.data[0]


def test_checkpoint_loads_with_weights_only(checkpoint_path):
    checkpoint = torch.load(checkpoint_path, weights_only=True)
    history = log_history(checkpoint)
    assert history.shape == (4,)
    assert np.isfinite(history).all()


def test_checkpoint_resumes(checkpoint_path, tmp_path, capsys):
    before = log_history(torch.load(checkpoint_path, weights_only=True))
    runner = build_runner(
        tmp_path,
        'second',
        max_epochs=3,
        resume=True,
        load_from=str(checkpoint_path),
    )
    runner.train()
    assert runner.iter == 6
    # What the forks print before they load without weights_only.
    assert 'Falling back' not in capsys.readouterr().out
    after = runner.message_hub.get_scalar('train/loss').data[0]
    np.testing.assert_array_equal(after[:4], before)
    # The forks take their own names off the list after each load.
    torch.load(tmp_path / 'epoch_3.pth', weights_only=True)


def test_checkpoint_of_another_numpy_loads(checkpoint_path):
    own = b'numpy._core.multiarray'
    other = b'numpy.core.multiarray'
    if np.lib.NumpyVersion(np.__version__) < '2.0.0':
        own, other = other, own
    path = with_numpy_names(checkpoint_path, own, other)
    np.testing.assert_array_equal(
        log_history(torch.load(path, weights_only=True)),
        log_history(torch.load(checkpoint_path, weights_only=True)),
    )


class Lookup:
    """Pickles as a lookup of an attribute."""

    def __init__(self, owner, name):
        self.arguments = owner, name

    def __reduce__(self):
        return getattr, self.arguments


def test_methods_of_history_buffers_load(tmp_path):
    torch.save(Lookup(HistoryBuffer, 'mean'), tmp_path / 'mean.pth')
    loaded = torch.load(tmp_path / 'mean.pth', weights_only=True)
    assert loaded is HistoryBuffer.mean


@pytest.mark.parametrize(
    'owner, name',
    [
        (HistoryBuffer, '__init__'),
        (HistoryBuffer, '__class__'),
        (np.ndarray, 'tofile'),
    ],
)
def test_other_lookups_are_refused(tmp_path, owner, name):
    torch.save(Lookup(owner, name), tmp_path / 'lookup.pth')
    with pytest.raises(pickle.UnpicklingError, match=name):
        torch.load(tmp_path / 'lookup.pth', weights_only=True)


@pytest.mark.parametrize(
    'array',
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(3, dtype='>f8'),
        np.arange(6, dtype=np.int16)[::2],
        np.zeros((0, 3)),
        np.array(3.0),
        np.array([True, False]),
        np.float32(0.5),
        np.int64(-(2**40)),
        np.bool_(True),
    ],
    ids=repr,
)
def test_arrays_of_numbers_load_and_can_be_saved_again(tmp_path, array):
    path = tmp_path / 'array.pth'
    for _ in range(2):
        torch.save({'array': array}, path)
        loaded = torch.load(path, weights_only=True)['array']
        assert loaded.dtype == array.dtype.newbyteorder('=')
        np.testing.assert_array_equal(loaded, array)
        array = loaded
    assert b'mmdet_longtail' not in path.read_bytes()


class Call:
    """Pickles as a call, and a state for what it returns."""

    def __init__(self, function, *args, state=None):
        self.reduced = function, args, state

    def __reduce__(self):
        return self.reduced


RECONSTRUCT = np.zeros(1).__reduce__()[0]
SCALAR = np.float64(0).__reduce__()[0]
RAW = bytes(range(64))


def crafted_array(shape, kind, content=RAW):
    return Call(
        RECONSTRUCT,
        np.ndarray,
        (0,),
        b'b',
        state=(1, shape, kind, False, content),
    )


def crafted_dtype(code, *state):
    return Call(np.dtype, code, False, True, state=(3, *state) or None)


PLAIN = ('<', None, None, None, -1, -1, 0)
CRAFTED = {
    'strides': Call(np.ndarray, (8,), 'f8', None, 0, (2**40,)),
    'objects': Call(np.ndarray, (8,), 'O', RAW),
    'uninitialised objects': Call(RECONSTRUCT, np.ndarray, (8,), 'O'),
    'other class': Call(RECONSTRUCT, HistoryBuffer, (8,), 'f8'),
    'array of objects': crafted_array((8,), crafted_dtype('O8', *PLAIN)),
    'list of objects': crafted_array((2,), crafted_dtype('O8'), [1, 2]),
    'too few bytes': crafted_array((2**40,), crafted_dtype('f8', *PLAIN)),
    'overflow': crafted_array((2**62, 4), crafted_dtype('f8', *PLAIN), b''),
    'negative': crafted_array((-(2**40),), crafted_dtype('f8', *PLAIN)),
    'no dtype': crafted_array((8,), np.ndarray),
    'text': crafted_array((8,), crafted_dtype('f8', *PLAIN), 'x' * 64),
    'subarray': crafted_array(
        (8,), crafted_dtype('f8', '<', ('f8', (2**40,)), None, None, 8, 8, 0)
    ),
    'fields': crafted_array(
        (8,),
        crafted_dtype(
            'V8', '<', None, ('a',), {'a': (crafted_dtype('O'), 99)}, 8, 8, 0
        ),
    ),
    'scalar object': Call(SCALAR, crafted_dtype('O8'), RAW[:8]),
    'scalar of few bytes': Call(SCALAR, crafted_dtype('f8', *PLAIN), b'1'),
    'array as dtype': Call(SCALAR, np.ndarray, RAW[:8]),
}
LOAD = """
import sys
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures import Checkpoint
for path in sys.argv[1:]:
    try:
        content = Checkpoint.load(path).meta
        print('read', [x.tolist() for x in content['crafted']])
    except LongTailError as error:
        print(error)
"""


def test_crafted_files_end_in_a_line(tmp_path):
    """None ends the process by a signal, and none gives a value."""
    weights = {'a': torch.zeros(1)}
    for name, crafted in CRAFTED.items():
        meta = {'crafted': [crafted]}
        content = {'state_dict': weights, 'meta': meta}
        torch.save(content, tmp_path / f'{name}.pth')
    # A new object without the checks of the constructor.
    with_new = b'cnumpy\nndarray\n(K\x08X\x01\x00\x00\x00Ot\x81.'
    torch.save({}, tmp_path / 'plain.pth')
    path = with_numpy_names(tmp_path / 'plain.pth', b'}q\x00.', with_new)
    paths = sorted(tmp_path.glob('[!p]*.pth'))
    assert path in paths and len(paths) == len(CRAFTED) + 1
    done = run_process([sys.executable, '-c', LOAD, *paths], tmp_path)
    assert done.returncode == 0, done.stderr
    # OneDL's mmdet prints lines of its own.
    kinds = (str(tmp_path), 'read')
    lines = [x for x in done.stdout.splitlines() if x.startswith(kinds)]
    assert [line.partition(': not a')[0] for line in lines] == [
        str(path) for path in paths
    ]


def lvis_files(folder):
    """One image with one box of each of two classes, found exactly."""
    boxes = [[0, 0, 10, 10], [20, 20, 10, 10]]
    truth = {
        'images': [
            {
                'id': 1,
                'height': 50,
                'width': 50,
                'neg_category_ids': [],
                'not_exhaustive_category_ids': [],
            }
        ],
        'categories': [
            {'id': 1, 'name': 'a', 'frequency': 'r'},
            {'id': 2, 'name': 'b', 'frequency': 'f'},
        ],
        'annotations': [
            {
                'id': label,
                'image_id': 1,
                'category_id': label,
                'bbox': box,
                'area': 100,
                'segmentation': [],
            }
            for label, box in enumerate(boxes, start=1)
        ],
    }
    detections = [
        {'image_id': 1, 'category_id': label, 'bbox': box, 'score': 0.9}
        for label, box in enumerate(boxes, start=1)
    ]
    (folder / 'truth.json').write_text(json.dumps(truth))
    (folder / 'detections.json').write_text(json.dumps(detections))
    return str(folder / 'truth.json'), str(folder / 'detections.json')


def test_lvis_evaluates_and_numpy_is_untouched(tmp_path):
    lvis = compat.import_lvis()
    evaluation = lvis.LVISEval(*lvis_files(tmp_path), iou_type='bbox')
    evaluation.run()
    results = evaluation.get_results()
    assert results['AP'] == pytest.approx(1)
    assert results['APr'] == pytest.approx(1)
    assert not hasattr(np, 'float')


def test_lvis_of_mmdet_is_the_same(tmp_path):
    from mmdet.evaluation.metrics import lvis_metric

    evaluation = lvis_metric.LVISEval(*lvis_files(tmp_path), iou_type='bbox')
    evaluation.run()
    assert evaluation.get_results()['AP'] == pytest.approx(1)


def test_package_without_lvis(tmp_path):
    truth, _ = lvis_files(tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys; sys.modules["lvis"] = None\n'
            'from mmdet_longtail.evaluation import metrics\n'
            f'metrics.FrequencyGroupMetric({truth!r})\n'
            f'metrics.FrequencyGroupMetric({truth!r}, back_end="reference")',
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    line = done.stderr.splitlines()[-1]
    assert 'LongTailError: lvis is not installed' in line
    assert 'pip install lvis' in line
    assert 'line 4' in done.stderr


def test_classification_without_mmpretrain_names_the_extra(monkeypatch):
    monkeypatch.setattr(compat, 'find_spec', lambda name: None)
    with pytest.raises(LongTailError) as error:
        compat.check_mmpretrain()
    (line,) = str(error.value).splitlines()
    assert 'needs mmpretrain, found not installed' in line
    assert "'.[classification]'" in line


@pytest.mark.skipif(
    find_spec('mmpretrain') is not None, reason='mmpretrain is here'
)
def test_config_of_classification_without_mmpretrain(tmp_path):
    config = ROOT / 'configs/classification/resnet32_seql_cifar-100-lt.py'
    process = run_process(command('train.py', config), tmp_path)
    assert process.returncode == 1
    (line,) = process.stderr.strip().splitlines()[-1:]
    assert line.startswith(f'error: {config}: not a config that can be read')
    assert "'.[classification]'" in line


@pytest.mark.parametrize(
    ('chosen', 'expected'),
    [
        ({}, '10000'),
        ({'GOMP_SPINCOUNT': '7'}, '7'),
        ({'OMP_WAIT_POLICY': 'PASSIVE'}, '0'),
    ],
)
def test_openmp_threads_wait_for_a_bounded_time(chosen, expected):
    environment = {
        k: v for k, v in os.environ.items() if k[:4] not in ('OMP_', 'GOMP')
    }
    environment |= {'OMP_DISPLAY_ENV': 'VERBOSE', 'PYTHONPATH': str(ROOT)}
    process = subprocess.run(
        [sys.executable, '-c', 'import mmdet_longtail'],
        env=environment | chosen,
        capture_output=True,
        text=True,
    )
    assert f"GOMP_SPINCOUNT = '{expected}'" in process.stderr


@pytest.mark.parametrize(
    ('layer', 'x'),
    [
        (dict(type='NormedLinear', in_features=3, out_features=2), (5, 3)),
        (
            dict(type='ScaledNormedLinear', in_features=3, out_features=2),
            (5, 3),
        ),
        (
            dict(
                type='NormedConv2d',
                in_channels=3,
                out_channels=2,
                kernel_size=1,
            ),
            (5, 3, 1, 1),
        ),
    ],
)
def test_normed_layers_take_both_spellings_of_temperature(layer, x):
    from mmdet.registry import MODELS

    outputs = []
    for settings in (dict(temperature=40), dict(tempearture=40), {}):
        torch.manual_seed(0)
        built = MODELS.build(dict(layer, bias=False, **settings))
        outputs.append(built(torch.ones(x)))
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[0], 2 * outputs[2])
    with pytest.raises(LongTailError, match='temperature and tempearture'):
        MODELS.build(dict(layer, temperature=40, tempearture=40))
