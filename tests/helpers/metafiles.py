"""model-index.yml and the metafiles, from the headers of the configs.

`make metafiles` writes them. mim searches them, and mmengine reads them for
``mmdet_longtail::`` names.
"""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

import mmdet_longtail  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
INDEX = 'model-index.yml'
NOTE = '# Written by `make metafiles` from the headers of the configs.\n'
# Such as: BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
PAPER = re.compile(r'([\w -]+?)(?: on [\w-]+)?[,:] [\w ]+ et al\.')
ADDRESS = re.compile(r'https://arxiv\.org/abs/[\d.]*\d')
BASELINE = 'Baseline'
# Captions of tables that have the result of the config itself.
PUBLISHED = re.compile(r"(The paper|BAGS|EQL)'s Table \d+(, row \d+)?")
OWN = 'Mean of 3 seeds'
NOT_ITS_OWN = ('Not comparable', 'No published result', 'Not published')
LENGTHS = {'max_epochs': 'Epochs', 'max_iters': 'Iterations'}
TASKS = {
    'classification': 'Image Classification',
    'mask': 'Instance Segmentation',
}


def header_of(path: Path) -> list[str]:
    """The comment lines at the top of a config."""
    lines = path.read_text().splitlines()
    comments = takewhile(lambda line: line.startswith('#'), lines)
    return [line.removeprefix('#').strip() for line in comments]


def results_of(stem: str, header: list[str]) -> dict[str, float]:
    """The row of the config in the table of its header, by column.

    The names of results in papers begin with 'published'.
    """
    table = [line for line in header if line.startswith('|')]
    if not table or any(text in ' '.join(header) for text in NOT_ITS_OWN):
        return {}
    caption = header[header.index(table[0]) - 1].removesuffix(', in percent:')
    if caption != OWN and not PUBLISHED.fullmatch(caption):
        return {}
    columns, _, *rows = (
        [cell.strip() for cell in line.strip('|').split('|')] for line in table
    )
    method = stem.split('_')[3:4]
    prefix = '' if caption == OWN else 'published '
    found = {}
    for row in rows:
        values = dict(zip(columns, row, strict=True))
        # A row may have a label, such as a method or the kind of its APs.
        label = values.pop(columns[0]) if 'AP' not in columns[0] else ''
        if label in ('', 'mask', 'box', *method):
            kind = label if label in ('mask', 'box') else columns[0][:4]
            kind = 'mask' if kind == 'mask' else 'box'
            for column, value in values.items():
                name = column if ' ' in column else f'{kind} {column}'
                found[prefix + name] = float(value)
    return found


def entry(path: Path) -> tuple[dict[str, Any], str | None]:
    """The entry of a config, and the address of its collection's paper."""
    header, folder = header_of(path), path.parent.name
    text = ' '.join(header)
    paper = PAPER.match(text)
    dataset = path.stem.rpartition('_')[2]
    config = Config.fromfile(path, import_custom_modules=False)
    loop = config.get('train_cfg') or {}
    model = {
        'Name': path.stem,
        'In Collection': paper[1] if paper else BASELINE,
        'Config': f'configs/{folder}/{path.name}',
        'Metadata': {'Training Data': dataset}
        | {LENGTHS[key]: loop[key] for key in LENGTHS if key in loop},
    }
    if metrics := results_of(path.stem, header):
        task = next(
            (TASKS[k] for k in TASKS if k in (folder, path.stem[:4])),
            'Object Detection',
        )
        result = {'Task': task, 'Dataset': dataset, 'Metrics': metrics}
        model['Results'] = [result]
    address = ADDRESS.search(text)
    return model, address[0] if paper and address else None


def render() -> dict[Path, str]:
    """The text of each file, by path."""
    files = {}
    folders = {path.parent for path in ROOT.glob('configs/[!_]*/*.py')}
    for folder in sorted(folders):
        entries = [entry(path) for path in sorted(folder.glob('*.py'))]
        papers: dict[str, str | None] = {}
        for model, address in entries:
            name = model['In Collection']
            papers[name] = papers.get(name) or address
        content = {
            'Collections': [
                {'Name': name} | ({'Paper': address} if address else {})
                for name, address in sorted(papers.items())
            ],
            'Models': [model for model, _ in entries],
        }
        files[folder / 'metafile.yml'] = _dump(content)
    names = [path.relative_to(ROOT).as_posix() for path in files]
    files[ROOT / INDEX] = _dump({'Import': names})
    return files


def _dump(content: dict[str, Any]) -> str:
    return NOTE + yaml.safe_dump(content, sort_keys=False, width=200)


if __name__ == '__main__':
    for path, text in render().items():
        path.write_text(text)
        print(path.relative_to(ROOT))
