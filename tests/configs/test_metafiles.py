"""mim and mmengine find our configs: metafiles, and ``mmdet_longtail::``."""

import metafiles
import mmengine.hub
import pytest
from mmdet.registry import MODELS
from mmengine.config import Config

NAME = 'mmdet_longtail::eql/mask-rcnn_r50_fpn_eql_25e_lvis-v0.5.py'
PATH = metafiles.ROOT / 'configs' / NAME.partition('::')[2]


def test_metafiles_are_those_of_the_headers():
    files = metafiles.render()
    for path, text in files.items():
        found = path.read_text() if path.exists() else ''
        assert found == text, f'{path} is stale: run `make metafiles`'
    written = {*metafiles.ROOT.glob('configs/*/metafile.yml')}
    assert written == {*files} - {metafiles.ROOT / metafiles.INDEX}


ONE_ROW = """
The paper's Table 1, in percent:
| mask AP | APr  | box AP |
|---------|------|--------|
| 22.8    | 11.3 | 23.3   |
"""
TWO_KINDS = """
BAGS's Table 3, row 2, in percent:
|      | AP    | APr   |
|------|-------|-------|
| mask | 31.20 | 23.40 |
| box  | 33.68 | 25.43 |
"""
OURS = """
Mean of 3 seeds, in percent:
|         | APr | APc  |
|---------|-----|------|
| eql     | 9.6 | 28.1 |
| sigmoid | 8.0 | 31.6 |
"""


@pytest.mark.parametrize(
    'header, expected',
    [
        (
            ONE_ROW,
            {
                'published mask AP': 22.8,
                'published mask APr': 11.3,
                'published box AP': 23.3,
            },
        ),
        (
            TWO_KINDS,
            {
                'published mask AP': 31.2,
                'published mask APr': 23.4,
                'published box AP': 33.68,
                'published box APr': 25.43,
            },
        ),
        (OURS, {'box APr': 9.6, 'box APc': 28.1}),
        (ONE_ROW + 'Not comparable: another loss.', {}),
        (ONE_ROW.replace('Table 1', 'Table 1, with more data'), {}),
    ],
)
def test_results_are_those_of_the_config(header, expected):
    stem = 'faster-rcnn_r18_fpn_eql_glyphs'
    found = metafiles.results_of(stem, header.strip().splitlines())
    assert found == expected


def test_a_base_by_the_name_of_our_package(tmp_path):
    """It equals a base by its path, and needs no scope of ours."""
    config = tmp_path / 'mine.py'
    config.write_text(f'_base_ = {NAME!r}\nwork_dir = "mine"\n')
    by_name = Config.fromfile(config)
    by_path = Config.fromfile(PATH)
    assert by_name.pop('work_dir') == 'mine'
    assert by_name.to_dict() == by_path.to_dict()
    assert 'mmdet_longtail' not in str(by_name.model)
    loss = MODELS.build(by_name.model.roi_head.bbox_head.loss_cls)
    assert loss.frequency_threshold == 1.76e-3


def test_a_base_that_is_not_there(tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text("_base_ = 'mmdet_longtail::eql/mine.py'\n")
    with pytest.raises(FileNotFoundError, match=r'eql/mine\.py'):
        Config.fromfile(config)


def test_the_hub_of_mmengine():
    for name in (NAME, 'mmdet_longtail::_base_/longtail_runtime.py'):
        path = metafiles.ROOT / 'configs' / name.partition('::')[2]
        found = mmengine.hub.get_config(name)
        assert found.to_dict() == Config.fromfile(path).to_dict()
