"""What `mim train mmdet_longtail NAME.py` needs: one file of that name."""

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def names(folder, pattern):
    return [
        path.name
        for path in (ROOT / folder).glob(pattern)
        if '.mim' not in path.parts
    ]


def test_a_config_is_found_by_its_name():
    everywhere = ('mmdet_longtail', 'configs', 'tools')
    counts = Counter(x for folder in everywhere for x in names(folder, '**/*'))
    configs = {
        path.name
        for path in (ROOT / 'configs').glob('*/*.py')
        if path.parent.name != '_base_'
    }
    assert configs
    assert {name for name in configs if counts[name] > 1} == set()


def test_a_tool_is_found_by_its_name():
    tools = names('tools', '**/*.py')
    assert len(set(tools)) == len(tools) > 0
