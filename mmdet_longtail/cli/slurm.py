"""Train a sweep as job arrays of Slurm."""

import getpass
import json
import subprocess
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet_longtail.apis.processes import TOOLS, exclusive, progress
from mmdet_longtail.errors import LongTailError, check, one_line
from mmdet_longtail.utils.fileio import read_record, write_atomic

if TYPE_CHECKING:
    from mmdet_longtail.apis.sweep import Run, Sweep

_NUM_LAST_LINES = 100


def call_slurm(command: Sequence[str]) -> str:
    """Run a command of Slurm and return its output."""
    try:
        process = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise LongTailError(
            f'--launcher slurm: no {command[0]} on the PATH; run this where '
            'Slurm is, such as the login node of a cluster, or leave out '
            '--launcher to train here'
        ) from None
    error = one_line(process.stderr)
    check(process.returncode == 0, f'{command[0]} failed: {error}')
    return process.stdout.strip()


class ArrayTasks:
    """Tasks of job arrays that train the runs of a work directory.

    ``slurm/tasks.json`` maps the name of a run to its last task, ``<job
    id>_<index>``. ``states`` maps those in the queue to states as 'pending'.
    """

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self.folder = work_dir / 'slurm'
        self.path = self.folder / 'tasks.json'
        self.task_of: dict[str, str] = {}
        self.states: dict[str, str] = {}
        if self.path.exists():
            self.task_of = read_record(self.path)
            options = ['--noheader', '--array', '--format', '%i %T']
            queue = call_slurm(
                ['squeue', '--user', getpass.getuser(), *options]
            )
            states = dict(map(str.split, queue.lower().splitlines()))
            self.states = {
                name: states[task]
                for name, task in self.task_of.items()
                if task in states
            }

    def check_none_queued(self) -> None:
        """Validate that no run of the work directory is in the queue."""
        for name in self.states:
            raise LongTailError(
                f'{name} is in the queue of Slurm as {self.task_of[name]}; '
                'scancel it, or use --launcher slurm'
            )

    def describe(self, run: 'Run') -> str:
        """Return the state of an unfinished run: progress, or error."""
        task = self.task_of.get(run.name)
        if task is None:
            return 'not trained yet'
        path = run.folder / 'log.txt'
        log = last_lines(path)
        if run.name in self.states:
            done = [text for text in map(progress, log) if text][-1:]
            return ', '.join([self.states[run.name], task, *done])
        errors = [line for line in log if line.startswith('error: ')]
        slurms = last_lines(self.folder / f'{task}.log')
        reason = (errors or slurms or log or ['it did not start'])[-1]
        return f'failed: {reason.removeprefix("error: ")} ({path})'

    def submit(self, names: Sequence[str], limit: str, *options: str) -> str:
        """Submit runs as one job array, record its tasks, return its id.

        Task i trains names[i]; limit is '%N' for N tasks at a time, or ''.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        output = str(self.folder.absolute()).replace('%', '%%')
        array = f'--array=0-{len(names) - 1}{limit}'
        log = f'--output={output}/%A_%a.log'
        script = [str(TOOLS / 'ablate.sbatch'), str(self.work_dir), *names]
        job = call_slurm(
            ['sbatch', '--parsable', array, log, *options, *script]
        ).partition(';')[0]
        self.task_of |= {n: f'{job}_{i}' for i, n in enumerate(names)}
        write_atomic(self.path, json.dumps(self.task_of, indent=1) + '\n')
        return job


def last_lines(path: Path) -> list[str]:
    """Return the last lines of a log that are not empty; it may be missing."""
    text = path.read_text(errors='replace') if path.exists() else ''
    lines = deque(text.splitlines(), maxlen=_NUM_LAST_LINES)
    return [line.strip() for line in lines if line.strip()]


def train_in_slurm(
    sweep: 'Sweep',
    max_jobs: int | None = None,
    gpus: int | None = None,
    sbatch_options: Sequence[str] = (),
    collect: bool = False,
) -> dict[str, str]:
    """Print the state of each run, and submit the missing ones.

    Runs that failed or were cancelled are submitted again. The result has the
    reason per failed run that is not.

    Args:
        sweep (Sweep): The runs.
        max_jobs (int, optional): Maximum number of runs at the same time,
            with those that were submitted before.
        gpus (int, optional): GPUs, and processes, per run, on one node.
        sbatch_options (Sequence[str]): More options of sbatch.
        collect (bool): Submit nothing. Defaults to False.

    Raises:
        LongTailError: If Slurm does not answer or rejects a job, or another
            process trains in the work directory.
    """
    resources = ['--nodes=1', f'--ntasks={gpus}', f'--gres=gpu:{gpus}']
    srun = resources if gpus is not None and gpus > 1 else []
    limit = '' if max_jobs is None else f'%{max_jobs}'
    failures: dict[str, str] = {}
    with exclusive(sweep.work_dir):
        tasks = ArrayTasks(sweep.work_dir)
        queued = (tasks.task_of[name] for name in tasks.states)
        jobs = sorted({task.partition('_')[0] for task in queued})
        runs = sorted(sweep.with_bases(), key=lambda run: len(run.stages))
        for _, level in groupby(runs, key=lambda run: len(run.stages)):
            missing = []
            for run in level:
                state = 'finished'
                options = ['--launcher', 'slurm'] if srun else []
                if 'runner_type' not in run.config:
                    # Exits with 75 when the time is up, and resumes there.
                    runner = 'runner_type=mmdet.ResumableRunner'
                    options += ['--cfg-options', runner]
                try:
                    run.write(options, srun)
                    if run.metrics is None:
                        state = tasks.describe(run)
                        if run.name not in tasks.states:
                            missing.append(run.name)
                        if collect and state.startswith('failed: '):
                            failures[run.name] = state.removeprefix('failed: ')
                except LongTailError as error:
                    failures[run.name] = state = str(error)
                print(f'  {run.name}: {state}', flush=True)
            if missing and not collect:
                options = [*(resources if gpus else ()), *sbatch_options]
                if jobs:
                    options.insert(
                        0, f'--dependency=afterany:{":".join(jobs)}'
                    )
                job = tasks.submit(missing, limit, *options)
                jobs.append(job)
                print(f'submitted {len(missing)} as job {job}', flush=True)
    if jobs:
        print(
            f'watch: squeue --jobs {",".join(jobs)}; end: scancel '
            f'{" ".join(jobs)}; repeat this command to collect results'
        )
    return failures
