"""The command ``longtail`` and its table of tools."""

import errno
import sys

import pytest
from tool_runs import TOOLS

from mmdet_longtail.cli import main as cli
from mmdet_longtail.errors import LongTailError


@pytest.fixture
def longtail(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['longtail', *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code or 0, *capsys.readouterr()

    return call


def test_every_tool_has_a_command():
    tools = {
        path.relative_to(TOOLS).as_posix()
        for path in TOOLS.glob('**/*.py')
        if 'benchmarks' not in path.parts
    }
    assert set(cli.COMMANDS.values()) == tools - {'torchrun.py'}


def test_help_lists_the_commands_with_their_docstrings(longtail):
    status, out, _ = longtail('--help')
    assert status == 0
    listed = dict(
        line.split(maxsplit=1)
        for line in out.splitlines()
        if line.startswith('  ')
    )
    assert set(listed) == set(cli.COMMANDS)
    assert listed['train'] == 'Train a detector.'
    assert listed['convert'].startswith('Convert classifiers')
    assert longtail()[0] == 2


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_a_command_is_the_tool_under_its_own_name(command, longtail):
    status, out, _ = longtail(command, '--help')
    assert status == 0
    assert out.startswith(f'usage: longtail {command} ')


@pytest.mark.parametrize(
    'command, advice',
    [('evalute', 'did you mean evaluate'), ('xyz', ': no such command; `lon')],
)
def test_a_wrong_command(command, advice, longtail):
    status, _, err = longtail(command)
    assert status == 1
    (line,) = err.splitlines()
    assert line.startswith(f'error: longtail {command}: no such command; ')
    assert advice in line


def raise_error(error):
    def main():
        raise error

    return main


def test_a_mistake_is_one_line_and_a_bug_keeps_its_trace(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run(raise_error(LongTailError('a.json:\n  no such file')))
    assert caught.value.code == 1
    assert capsys.readouterr().err == 'error: a.json: no such file\n'
    with pytest.raises(SystemExit) as caught:
        cli.run(raise_error(KeyboardInterrupt()))
    assert caught.value.code == 130
    error = PermissionError(errno.EACCES, 'Permission denied', 'a.json')
    with pytest.raises(SystemExit) as caught:
        cli.run(raise_error(error))
    assert caught.value.code == 1
    assert capsys.readouterr().err == 'error: a.json: Permission denied\n'
    with pytest.raises(KeyError, match='a bug'):
        cli.run(raise_error(KeyError('a bug')))
    # A module of our own, or of nobody, that is missing is a bug as well.
    with pytest.raises(ModuleNotFoundError):
        cli.run(raise_error(ModuleNotFoundError(name='yamll')))


def test_an_option_with_an_open_bracket(longtail):
    status, _, error = longtail('train', 'c.py', '--cfg-options', 'a=[1,2')
    assert status == 2 and 'closed brackets, found a=[1,2' in error
