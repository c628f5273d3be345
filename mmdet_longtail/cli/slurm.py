"""Job arrays: what is in Slurm's queue, and putting more into it."""

from __future__ import annotations

import getpass
import json
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmdet_longtail.errors import LongTailError, one_line
from mmdet_longtail.utils.fileio import read_json, write_atomic

_PROGRESS = re.compile(
    r'(?:Epoch|Iter)\((?:train|val)\)\s+(?:\[\d+\])?\[\s*\d+/\d+\]'
)
_NUM_LAST_BYTES = 20_000


def call_slurm(command: Sequence[str]) -> str:
    """Run one of Slurm's commands.

    Args:
        command (Sequence[str]): The command and its arguments.

    Returns:
        str: What it prints.

    Raises:
        LongTailError: If it is not there or fails, with its words.
    """
    try:
        process = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise LongTailError(
            f'--launcher slurm: no {command[0]} on the PATH; call this where '
            'Slurm is, such as the login node of a cluster, or leave out '
            '--launcher to train here'
        ) from None
    if process.returncode != 0:
        raise LongTailError(f'{command[0]} failed: {one_line(process.stderr)}')
    return process.stdout.strip()


class ArrayTasks:
    """The tasks of job arrays that the runs of a work directory were given.

    Args:
        folder (Path): Gets tasks.json: the name of a run -> its last task,
            ``<job id>_<index>``; and what Slurm says about each task.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / 'tasks.json'
        self.task_of: dict[str, str] = {}
        if self.path.exists():
            self.task_of = read_json(self.path)

    def states(self) -> dict[str, str]:
        """Ask Slurm for the tasks in its queue.

        Returns:
            dict[str, str]: Run -> state in Slurm's word, such as pending;
            only of runs that are waiting or at work.

        Raises:
            LongTailError: If Slurm does not answer.
        """
        if not self.task_of:
            return {}
        options = ['--noheader', '--array', '--format', '%i %T']
        lines = call_slurm(
            ['squeue', '--user', getpass.getuser(), *options]
        ).splitlines()
        in_queue = dict(line.split(maxsplit=1) for line in lines)
        return {
            name: in_queue[task].lower()
            for name, task in self.task_of.items()
            if task in in_queue
        }

    def submit(
        self,
        script: Path,
        work_dir: Path,
        names: Sequence[str],
        after: Iterable[str],
        max_jobs: int | None,
        options: Sequence[str],
    ) -> str:
        """Submit runs as one job array, and note their tasks.

        Args:
            script (Path): Batch script; its arguments are the work directory
                and the names.
            work_dir (Path): Where the runs are.
            names (Sequence[str]): Task i trains names[i].
            after (Iterable[str]): Jobs that have to end before.
            max_jobs (int | None): Tasks at the same time; None leaves it to
                Slurm.
            options (Sequence[str]): More for sbatch.

        Returns:
            str: Number of the job.

        Raises:
            LongTailError: If Slurm refuses it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        limit = '' if max_jobs is None else f'%{max_jobs}'
        output = str(self.folder.absolute()).replace('%', '%%')
        command = [
            'sbatch',
            '--parsable',
            f'--array=0-{len(names) - 1}{limit}',
            f'--output={output}/%A_%a.log',
        ]
        if jobs := ':'.join(sorted(set(after))):
            command.append(f'--dependency=afterany:{jobs}')
        job = call_slurm(
            [*command, *options, str(script), str(work_dir), *names]
        ).split(';')[0]
        self.task_of |= {
            name: f'{job}_{index}' for index, name in enumerate(names)
        }
        write_atomic(self.path, json.dumps(self.task_of, indent=1) + '\n')
        return job

    def job(self, name: str) -> str:
        """Give the number of the job array that a run was given to."""
        return self.task_of[name].partition('_')[0]

    def last_words(self, name: str, log_path: Path) -> str:
        """Say why a run ended.

        Args:
            name (str): The run, which was submitted.
            log_path (Path): Its log.

        Returns:
            str: Its error, or the last line of its log, or of Slurm's.
        """
        own = read_end(log_path)
        for line in reversed(own):
            if line.startswith('error: '):
                return line.removeprefix('error: ')
        slurms = read_end(self.folder / f'{self.task_of[name]}.log')
        return (slurms or own or ['it never began'])[-1]


def read_end(path: Path) -> list[str]:
    """Read the last lines of a log that are not empty.

    Args:
        path (Path): May be missing.
    """
    if not path.exists():
        return []
    with path.open('rb') as file:
        file.seek(max(0, path.stat().st_size - _NUM_LAST_BYTES))
        lines = file.read().decode(errors='replace').splitlines()
    return [line.strip() for line in lines if line.strip()]


def progress(log_path: Path) -> str:
    """Say how far a run is, such as ``, Epoch(train) [3][150/200]``.

    Args:
        log_path (Path): Its log, which may be missing.
    """
    found = _PROGRESS.findall('\n'.join(read_end(log_path)))
    return f', {found[-1]}' if found else ''
