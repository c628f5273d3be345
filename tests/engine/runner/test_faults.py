"""A training that is killed again and again, and ends as if it was not."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from survival import (
    assert_same_end,
    iterations,
    last,
    load,
    start,
    write_run,
)
from tool_runs import command, environment

KILLS = 20


def kill_somewhere(process, work_dir, dice):
    """Kill a run or its whole group: at its start, or some steps later."""
    number = dice.choice([signal.SIGTERM, signal.SIGKILL])
    send = dice.choice([os.kill, os.killpg])
    until = time.monotonic() + dice.uniform(0, 2)
    steps = iterations(work_dir) + dice.randint(1, 4)
    is_at_start = dice.random() < 0.2
    while process.is_alive() and (
        time.monotonic() < until
        if is_at_start
        else iterations(work_dir) < steps
    ):
        time.sleep(0.005)
    time.sleep(dice.uniform(0, 0.05))
    try:
        send(process.pid, number)
    except ProcessLookupError:  # before it has a group of its own
        os.kill(process.pid, number)
    process.join(60)
    status = process.exitcode
    assert status is not None, 'it hangs'
    if number == signal.SIGKILL:
        assert status in (-signal.SIGKILL, 0)
    else:
        assert status in (75, -signal.SIGTERM, 0)
    return number.name, send.__name__, status


def check_files(work_dir):
    """All checkpoints are whole, and the last one is there."""
    if not (work_dir / 'last_checkpoint').exists():
        return 0
    checkpoints = list(work_dir.glob('*.pth'))
    names = [path.name for path in checkpoints]
    named = (work_dir / 'last_checkpoint').read_text()
    assert os.path.basename(named) in names
    for path in checkpoints:
        load(path)
    return len(checkpoints)


@pytest.mark.slow
def test_twenty_kills_leave_the_result_of_none(tmp_path):
    config = write_run(tmp_path)
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    process = start(config, whole)
    process.join(120)
    assert process.exitcode == 0
    dice = random.Random(0)
    faults = []
    most_kept = 0
    while len(faults) < KILLS:
        faults.append(kill_somewhere(start(config, killed), killed, dice))
        num_kept = check_files(killed)
        assert num_kept >= min(most_kept, 2)
        most_kept = max(most_kept, num_kept)
    before_end = sum(status != 0 for *_, status in faults)
    process = start(config, killed)
    process.join(120)
    assert process.exitcode == 0
    assert_same_end(whole, killed)
    assert not list(killed.glob('*.tmp'))
    for fault, count in sorted(Counter(faults).items()):
        print(*fault, count)
    print(f'{before_end} before the end, {iterations(killed)} iterations')
    assert before_end >= 15


def run_two_ranks(config, work_dir):
    """Start torchrun, and give its process."""
    options = ['--resume', 'auto', '--launcher', 'pytorch']
    script = command('train.py', config, '--work-dir', work_dir, *options)[1:]
    runner = ['-m', 'torch.distributed.run', '--standalone']
    with open(f'{work_dir}.log', 'a') as log:
        return subprocess.Popen(
            [sys.executable, *runner, '--nproc-per-node', '2', *script],
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def ranks_of(launcher):
    """Find the processes that a launcher has started."""
    path = f'/proc/{launcher.pid}/task/{launcher.pid}/children'
    with open(path) as file:
        return list(map(int, file.read().split()))


@pytest.mark.slow
@pytest.mark.parametrize('asked', [0, 1])
def test_one_of_two_ranks_is_asked(tmp_path, asked):
    config = write_run(tmp_path, find_unused_parameters=True)
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    assert run_two_ranks(config, whole).wait(180) == 0
    launcher = run_two_ranks(config, stopped)
    while launcher.poll() is None and iterations(stopped) < 10:
        time.sleep(0.01)
    os.kill(ranks_of(launcher)[asked], signal.SIGTERM)
    assert launcher.wait(60) == 1
    with open(f'{stopped}.log') as log:
        text = log.read()
    assert text.count('exitcode  : 75') == 2, text[-3000:]
    assert last(stopped)['meta']['iter'] < 30
    assert run_two_ranks(config, stopped).wait(180) == 0
    assert_same_end(whole, stopped)
