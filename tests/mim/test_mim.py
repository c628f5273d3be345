"""openmim's commands, each run as docs/launch.md has it."""

import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch
from tiny import make_data, write_config

MIM = Path(sysconfig.get_path('scripts'), 'mim')
TOOLS = Path(sysconfig.get_path('purelib'), 'mmdet_longtail/.mim/tools')
if not (MIM.exists() and TOOLS.exists()):
    pytest.skip(
        'no openmim, or an editable package, which it does not find: '
        '`make test-mim` has an environment for it',
        allow_module_level=True,
    )

HEAD = 'model.roi_head.bbox_head'
LOSS = f'{HEAD}.loss_cls'
CONFIGS = {
    'eql': "type='EqualizationLoss', num_classes=4, tail_ratio=0.3",
    'bags': "type='BalancedGroupSoftmaxLoss', num_classes=4, "
    'bin_edges=(2, 3), others_ratio=8.0',
}
LOSS_CONFIG = """
_base_ = 'softmax.py'
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(
    _delete_=True, {}))))
custom_hooks = [dict(type='ClassStatisticsHook')]
"""
SHORT = (
    '--cfg-options',
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'train_dataloader.dataset.indices=4',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'val_dataloader.dataset.indices=2',
)


@pytest.fixture(scope='session')
def project(tmp_path_factory):
    """A dataset and configs, in the folder where mim is called."""
    folder = tmp_path_factory.mktemp('project')
    make_data(folder / 'data')
    write_config(folder / 'softmax.py', folder / 'data')
    for name, loss in CONFIGS.items():
        (folder / f'{name}.py').write_text(LOSS_CONFIG.format(loss))
    return folder


@pytest.fixture(scope='session')
def glyphs(tmp_path_factory):
    """A folder with a small data/glyphs, which the configs look for."""
    folder = tmp_path_factory.mktemp('glyphs')
    mim('run', 'mmdet_longtail', 'make_glyphs', '--images', 40, cwd=folder)
    return folder


def mim(*arguments, cwd, status=0):
    """Run mim, and give all that it says."""
    process = subprocess.run(
        [str(MIM), *map(str, arguments)],
        cwd=cwd,
        # Else a name of the checkout would be found before the installed one.
        env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert process.returncode == status, process.stdout[-3000:]
    return process.stdout


def logged(work_dir):
    """What was logged there, by whichever launcher."""
    (log,) = work_dir.glob('*/*.log')
    return log.read_text()


@pytest.mark.parametrize('package', ['mmdet', 'mmdet_longtail'])
def test_train_and_test(project, tmp_path, package):
    output = mim(
        'train', package, 'eql.py', '--work-dir', tmp_path, cwd=project
    )
    assert (str(TOOLS) in output) == (package == 'mmdet_longtail')
    assert 'Class statistics: 4 classes' in output
    output = mim(
        *('test', package, 'eql.py', '--work-dir', tmp_path),
        *('--checkpoint', tmp_path / 'epoch_1.pth'),
        cwd=project,
    )
    assert 'Epoch(test) [2/2]' in output


def test_two_processes(project, tmp_path):
    launcher = ('--launcher', 'pytorch', '--gpus', 2, '--work-dir', tmp_path)
    mim('train', 'mmdet_longtail', 'bags.py', *launcher, cwd=project)
    assert 'GPU number: 2' in logged(tmp_path)
    output = mim(
        *('test', 'mmdet_longtail', 'bags.py', *launcher),
        *('--checkpoint', tmp_path / 'epoch_1.pth'),
        cwd=project,
    )
    assert 'Epoch(test) [1/1]' in output


@pytest.mark.skipif(torch.cuda.is_available(), reason='here is a GPU')
def test_two_processes_of_mmdet_need_gpus(project, tmp_path):
    output = mim(
        *('train', 'mmdet', 'eql.py', '--launcher', 'pytorch', '--gpus', 2),
        *('--work-dir', tmp_path),
        cwd=project,
        status=1,
    )
    assert re.search('_cuda_setDevice|Torch not compiled with CUDA', output)


def test_config_by_its_name(glyphs):
    mim(
        *('train', 'mmdet_longtail', 'faster-rcnn_r18_fpn_softmax_glyphs.py'),
        *SHORT,
        cwd=glyphs,
    )
    name = 'work_dirs/faster-rcnn_r18_fpn_softmax_glyphs'
    assert (glyphs / name / 'metrics.json').is_file()


def test_search(tmp_path):
    out = tmp_path / 'found.json'
    options = ('--model', 'bags', '--field', 'epochs', 'config')
    mim('search', 'mmdet_longtail', *options, '--json', out, cwd=tmp_path)
    text = out.read_text().replace('\\/', '/')  # as pandas writes it
    name = 'faster-rcnn_r18_fpn_bags-classifier_glyphs'
    assert f'configs/glyphs/{name}.py' in text
    assert 'mask-rcnn_r50_fpn_eql_25e_lvis-v0.5' not in text


def test_search_for_lambda(glyphs):
    """In configs that are written for it."""
    output = mim(
        *('gridsearch', 'mmdet_longtail'),
        *('faster-rcnn_r18_fpn_eql_glyphs.py', '--work-dir', 'lambda'),
        *('--search-args', f'--{LOSS}.tail_ratio 0.03 0.09', *SHORT),
        cwd=glyphs,
    )
    assert 'The hyper parameter search finished successfully' in output
    for value in ('0.03', '0.09'):
        folder = glyphs / f'lambda_search_{LOSS}.tail_ratio_{value}'
        assert (folder / 'metrics.json').is_file()
        assert f'tail_ratio={value}' in next(folder.glob('*.py')).read_text()


def search(project, tmp_path, package, config, search_args, **kwargs):
    return mim(
        *('gridsearch', package, config, '--work-dir', tmp_path / 'grid'),
        *('--search-args', search_args),
        cwd=project,
        **kwargs,
    )


@pytest.mark.parametrize('package', ['mmdet', 'mmdet_longtail'])
def test_search_for_an_edge(project, tmp_path, package):
    search(project, tmp_path, package, 'bags.py', f'--{LOSS}.bin_edges (2,)')
    (folder,) = tmp_path.iterdir()
    assert 'loss_cls_from_2' in logged(folder)


def test_search_for_two_edges_is_beyond_mim(project, tmp_path):
    output = search(
        *(project, tmp_path, 'mmdet_longtail', 'bags.py'),
        f'--{LOSS}.bin_edges (1,2)',
        status=1,
    )
    assert 'error: unrecognized arguments: 2)' in output


def test_search_wants_the_type_that_the_config_has(project, tmp_path):
    output = search(
        *(project, tmp_path, 'mmdet_longtail', 'bags.py'),
        f'--{LOSS}.others_ratio 4',
        status=1,
    )
    assert f'Arg {LOSS}.others_ratio not in the config file' in output


def test_run(project, tmp_path):
    out = tmp_path / 'statistics.json'
    mim(
        *('run', 'mmdet_longtail', 'class_statistics'),
        *('data/train.json', '--out', out),
        cwd=project,
    )
    assert len(json.loads(out.read_text())['classes']) == 4


def test_our_line_stands_between_the_stack_traces(project, tmp_path):
    output = mim(
        *('train', 'mmdet_longtail', 'softmax.py', '--work-dir', tmp_path),
        *('--cfg-options', f'{HEAD}.num_classes=7'),
        cwd=project,
        status=1,
    )
    (line,) = [x for x in output.splitlines() if x.startswith('error: ')]
    assert 'num_classes is 7, but the dataset has 4 classes' in line


# ------------------------------------------------------------------ Slurm


def default_partition():
    if shutil.which('sinfo') is None:
        return None
    process = subprocess.run(
        ['sinfo', '--noheader', '--format', '%P'],
        capture_output=True,
        text=True,
    )
    names = [x for x in process.stdout.split() if x.endswith('*')]
    return names[0].removesuffix('*') if names else None


@pytest.fixture
def slurm():
    """The options for two processes on a partition without GPUs."""
    partition = default_partition()
    if partition is None:
        pytest.skip('no Slurm answers here')
    return (
        *('--launcher', 'slurm', '--partition', partition),
        *('--cpus-per-task', 1, '--srun-args', '--gres=none'),
    )


@pytest.mark.slurm
def test_train_and_test_by_slurm(project, tmp_path, slurm):
    options = (*slurm, '--gpus', 2, '--gpus-per-node', 2)
    options = (*options, '--work-dir', tmp_path)
    mim('train', 'mmdet_longtail', 'eql.py', *options, cwd=project)
    assert 'GPU number: 2' in logged(tmp_path)
    output = mim(
        *('test', 'mmdet_longtail', 'eql.py', *options),
        *('--checkpoint', tmp_path / 'epoch_1.pth'),
        cwd=project,
    )
    assert 'Epoch(test) [1/1]' in output


@pytest.mark.slurm
def test_search_by_slurm(project, tmp_path, slurm):
    options = (*slurm, '--gpus', 1, '--gpus-per-node', 1, '--max-jobs', 2)
    mim(
        *('gridsearch', 'mmdet_longtail', 'eql.py', *options),
        *('--work-dir', tmp_path / 'grid'),
        *('--search-args', f'--{LOSS}.tail_ratio 0.1 0.4'),
        cwd=project,
    )
    assert len(list(tmp_path.glob('*/metrics.json'))) == 2
