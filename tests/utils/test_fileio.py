"""Files are read with errors of one line, and written atomically."""

import gzip
import json
import os
import pickle
import subprocess

import pytest

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.fileio import (
    HOST,
    check_writable,
    read_json,
    read_record,
    read_text,
    remove_unfinished,
    write_atomic,
)


@pytest.mark.parametrize(
    ('content', 'read', 'message'),
    [
        (None, read_text, 'no such file'),
        (b'\xff\xfe\x00', read_text, 'cannot be read'),
        (b'{"a": ', read_json, 'not valid JSON .* is the file complete'),
        (b'{"a": ', read_record, 'not valid JSON .* is the file complete'),
        (b'{"a": ["cat \\ud83d"]}', read_json, r'\\ud83d\' after .*cat'),
        (b'[]', read_record, 'expected an object'),
        (b'{"a": 1}', lambda path: read_record(path, 'b'), 'object with b'),
        (b'', read_json, 'not valid JSON .* is empty'),
        (b'\0\0', read_json, 'not valid JSON .* is empty'),
        (b'{"a": 1}\0\0', read_json, 'NUL'),
        (b'{"a": 1}\n{"a": 2}\n', read_json, 'JSON lines'),
        ('{"a": 1}'.encode('utf-16'), read_json, 'UTF-16'),
        ('{"a": 1}'.encode('utf-16-le'), read_json, 'UTF-16'),
        ('{"a": 1}'.encode('utf-16-be'), read_json, 'UTF-16'),
        # With the time in it, each worker would name the test differently.
        (gzip.compress(b'{"a": 1}', mtime=0), read_json, 'gzip'),
        (pickle.dumps({'a': 1}), read_json, 'pickle'),
        (b'[' * 100_000, read_json, 'not valid JSON'),
        (b'{"a": "\xe4"}', read_json, 'UTF-8'),
    ],
)
def test_broken_files(tmp_path, content, read, message):
    path = tmp_path / 'file'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LongTailError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f'{path}: ')
    assert '\n' not in str(caught.value)


def test_round_trip(tmp_path):
    path = tmp_path / 'a folder' / 'file.json'
    write_atomic(path, '\ufeff' + json.dumps({'ä': 1}, ensure_ascii=False))
    assert read_json(path) == {'ä': 1}
    path.write_text(json.dumps('😀 \\ud83d'))  # a pair, and its spelling
    assert read_json(path) == '😀 \\ud83d'
    write_atomic(path, b'bytes')
    assert read_text(path) == 'bytes'
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').write_text('old')
    for path in (tmp_path / 'folder', tmp_path / 'file' / 'below'):
        with pytest.raises(LongTailError, match='cannot be written'):
            write_atomic(path, 'new')
    assert (tmp_path / 'file').read_text() == 'old'
    assert {p.name for p in tmp_path.iterdir()} == {'folder', 'file'}


def test_paths_that_can_be_written(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    for name in ('new', 'file', 'some/new/folder/file'):
        check_writable(tmp_path / name)
    for name in ('', 'file/file', 'file/folder/file'):
        with pytest.raises(LongTailError, match='cannot be written'):
            check_writable(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    check_writable('relative.json')


def test_only_files_of_processes_that_are_gone_are_removed(tmp_path):
    ended = subprocess.Popen(['true'])
    ended.wait()
    running = os.getppid()
    gone = [f'a.pth.{HOST}.{pid}.tmp' for pid in (ended.pid, os.getpid())]
    kept = [
        f'a.pth.{HOST}.{running}.tmp',
        f'a.pth.other-{HOST}.{ended.pid}.tmp',
        f'a.pth.{HOST}.x.tmp',
        'a.tmp',
        'a.pth',
    ]
    for name in [*gone, *kept]:
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)
