"""The last checkpoint of a training, and images that cannot be read."""

from pathlib import Path

import pytest
from tiny import make_data, write_config
from tool_runs import call_tool as call_tool
from tool_runs import refused

from mmdet_longtail.apis.runner import last_checkpoint
from mmdet_longtail.errors import LongTailError


def test_the_last_checkpoint_is_found_where_it_is(tmp_path):
    for name in ('run', 'elsewhere'):
        (tmp_path / name).mkdir()
    pointer = tmp_path / 'run' / 'last_checkpoint'
    moved = tmp_path / 'run' / 'epoch_1.pth'
    moved.touch()
    pointer.write_text('/before/the/move/epoch_1.pth\n')
    assert last_checkpoint(tmp_path / 'run') == moved
    other = tmp_path / 'elsewhere' / 'epoch_2.pth'
    other.touch()
    pointer.write_text(str(other))
    assert last_checkpoint(tmp_path / 'run') == other


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'no training wrote'),
        (b'', 'last_checkpoint: expected the path'),
        (b'\n', 'last_checkpoint: expected the path'),
        (b'\xff\xfe\x00', 'last_checkpoint: cannot be read'),
        (b'a\x00b', 'last_checkpoint: expected the path'),
        (b'/', 'last_checkpoint: expected the path'),
        (b'a' * 5000, 'last_checkpoint: expected the path'),
        (b'run/gone.pth', "last_checkpoint: .* found 'run/gone.pth'"),
    ],
)
def test_a_broken_pointer_is_one_line(tmp_path, content, message, call_tool):
    if content is not None:
        (tmp_path / 'last_checkpoint').write_bytes(content)
    with pytest.raises(LongTailError, match=message) as caught:
        last_checkpoint(tmp_path)
    assert '\n' not in str(caught.value)
    if content is not None:
        config = write_config(tmp_path / 'tiny.py', tmp_path)
        options = ('--work-dir', tmp_path, '--resume')
        assert str(caught.value) == refused(
            call_tool('train.py', config, *options)
        )


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('content', [b'', b'text', b'half', None])
def test_an_image_that_cannot_be_read_is_named(
    tmp_path, content, num_workers, call_tool
):
    data = make_data(tmp_path / 'data')
    config = write_config(tmp_path / 'tiny.py', data)
    path = Path(data, 'images', 'train_2.png')
    if content is None:
        path.unlink()
    elif content == b'half':
        path.write_bytes(path.read_bytes()[:3000])
    else:
        path.write_bytes(content)
    workers = f'train_dataloader.num_workers={num_workers}'
    line = refused(call_tool('train.py', config, '--cfg-options', workers))
    assert str(path) in line
    assert len(line) < 400
