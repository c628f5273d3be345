"""Gains of methods over a control."""

import pytest

from mmdet_longtail.apis.gains import read_gains
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.visualization.gains import plot_gains

HEADER = (
    'config,loss.beta,seed,frequency_group/bbox_AP,frequency_group/bbox_APr,'
    'frequency_group/bbox_APc,frequency_group/bbox_APf\n'
)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / 'ablation.csv'
    path.write_text(
        HEADER
        + 'a/faster_softmax_set.py,,0,0,0.10,0.2,0.3\n'
        + 'a/faster_softmax_set.py,,1,0,0.12,0.2,0.3\n'
        + 'a/faster_bags_set.py,8,0,0,0.15,0.1,0.3\n'
        + 'a/faster_bags_set.py,8,1,0,0.14,0.2,0.4\n'
        + 'a/faster_bags_set.py,8,2,0,0.99,0.9,0.9\n'
    )
    return path


def test_gains_are_paired_by_seed(table):
    gains = read_gains(table, 'softmax')
    assert list(gains) == ['bags']
    for group, expected in dict(APr=[5, 2], APc=[-10, 0], APf=[0, 10]).items():
        assert gains['bags'][group] == pytest.approx(expected, abs=1e-9)


def test_of_several_metrics_the_first_counts(table):
    before = read_gains(table, 'softmax')
    header, *rows = table.read_text().splitlines()
    more = ','.join(f'checked_1.0/bbox_AP{group}' for group in 'rcf')
    lines = [f'{header},{more}', *(f'{row},0,0,0' for row in rows)]
    table.write_text('\n'.join(lines))
    assert read_gains(table, 'softmax') == before


def test_a_group_without_classes_has_no_gain(table):
    text = table.read_text().replace('0.1,0.3', '-1,').replace('0.2', '-1')
    table.write_text(text)
    gains = read_gains(table, 'softmax')['bags']
    assert gains['APc'] == [] and len(gains['APr']) == 2
    assert gains['APf'] == pytest.approx([10])


def test_settings_name_the_methods_of_one_config(table):
    with table.open('a') as file:
        file.write('a/faster_bags_set.py,4,0,0,0.11,0.2,0.3\n')
    assert list(read_gains(table, 'softmax')) == ['bags 8', 'bags 4']


def test_a_table_of_a_spreadsheet(table):
    expected = read_gains(table, 'softmax')
    table.write_text(table.read_text(), encoding='utf-8-sig')
    assert read_gains(table, 'softmax') == expected
    table.write_text(table.read_text().replace('0.15', 'best'))
    with pytest.raises(LongTailError, match="bbox_APr of bags is 'best'"):
        read_gains(table, 'softmax')


def test_picture_has_all_methods_and_sets(table):
    gains = read_gains(table, 'softmax')
    figure = plot_gains({'one': gains, 'two': gains}, 'softmax')
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ['bags']
    assert axes.get_legend_handles_labels()[1] == ['one', 'two']


def test_picture_of_a_set_without_rare_classes(table):
    gains = read_gains(table, 'softmax')
    gains['bags']['APr'] = []
    empty, *panels = plot_gains({'one': gains}, 'softmax').axes
    assert not empty.lines[-1].get_xydata().size
    assert all(len(axes.lines[-1].get_xydata()) == 1 for axes in panels)


def test_other_tables_are_refused(table, tmp_path):
    with pytest.raises(LongTailError, match="no method 'x', but softmax"):
        read_gains(table, 'x')
    (tmp_path / 'other.csv').write_text('a,b\n1,2\n')
    for name in ('other.csv', 'none.csv'):
        with pytest.raises(LongTailError, match=name):
            read_gains(tmp_path / name, 'softmax')
