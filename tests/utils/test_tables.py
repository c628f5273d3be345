"""Tables as text and as CSV files, and a silent standard output."""

import csv

import pytest

from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.tables import make_table, table_text, write_csv


def test_text():
    text = table_text(make_table(['name', 'AP'], [['a', 0.5], ['bc', 12]]))
    lines = [line.split() for line in text.splitlines()]
    assert ['name', 'AP'] in lines
    assert ['a', '0.5'] in lines
    assert ['bc', '12'] in lines
    ends = {len(line.rstrip()) for line in text.splitlines() if '1' in line}
    assert ends == {text.splitlines()[1].rstrip().rfind('AP') + 2}


def test_csv(tmp_path):
    path = tmp_path / 'table.csv'
    write_csv(path, {'name': ['a', 'b,c'], 'AP': [0.5, 1]})
    with open(path, newline='') as file:
        rows = list(csv.reader(file))
    assert rows == [['name', 'AP'], ['a', '0.5'], ['b,c', '1']]
    with pytest.raises(ValueError, match='shorter'):
        write_csv(path, {'name': ['a', 'b'], 'AP': [1]})


def test_quiet(capsys):
    with quiet():
        print('unseen')
    print('seen')
    assert capsys.readouterr().out == 'seen\n'
