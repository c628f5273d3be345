"""Tables as text and as CSV files, and a silent standard output."""

import csv
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils import console
from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.tables import (
    escape_formula,
    make_frame,
    make_table,
    table_text,
    unescape_formula,
    write_csv,
)


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


FORMULAS = [
    '=1+1',
    '+a',
    '-a',
    '@a',
    '\ta',
    '\ra',
    '\na',
    "'=a",
    "''+a",
    '--1',
]
TEXTS = ['a', 'a=1', "'a", '', '-', '-1', '+1.5e3', '-inf', ' =a', "it's"]


def test_formulas_in_csv_are_text(tmp_path):
    path = tmp_path / 'table.csv'
    numbers = range(-9, -9 + len(FORMULAS))
    write_csv(path, {'name': FORMULAS, '=AP': numbers, '-x': [-0.5] * 10})
    with open(path, newline='') as file:
        heading, *rows = csv.reader(file)
    assert heading == ['name', "'=AP", "'-x"]
    for text, number, row in zip(FORMULAS, numbers, rows, strict=True):
        assert row == [f"'{text}", str(number), '-0.5']
        assert unescape_formula(row[0]) == text


@pytest.mark.parametrize('text', TEXTS)
def test_other_cells_stay_as_they_are(text):
    expected = f"'{text}" if text == '-' else text
    assert escape_formula(text) == expected


@pytest.mark.parametrize('cell', [-1, -0.5, None, True])
def test_numbers_stay_numbers(cell):
    assert escape_formula(cell) is cell


@given(st.text("'=+-@\t\r\na1", max_size=4))
def test_escaping_is_reversible(text):
    assert unescape_formula(escape_formula(text)) == text


def test_a_frame_needs_pandas(monkeypatch):
    columns = {'name': ('a', 'b'), 'AP': [0.5, float('nan')]}
    assert make_frame(columns)['AP'].isna().tolist() == [False, True]
    monkeypatch.setitem(sys.modules, 'pandas', None)
    with pytest.raises(LongTailError, match='pip install pandas'):
        make_frame(columns)


def test_progress_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(console, 'SECONDS_PER_LINE', 0.0)
    assert [*console.show_progress([5, 6], 'Counting')] == [5, 6]
    lines = capsys.readouterr().out.splitlines()
    assert lines == ['Counting ...', 'Counting: 1 of 2', 'Counting: 2 of 2']
    monkeypatch.setattr(console, 'SECONDS_PER_LINE', 1e9)
    assert [*console.show_progress(iter('ab'), 'Counting')] == ['a', 'b']
    assert capsys.readouterr().out == 'Counting ...\n'


def test_quiet(capsys):
    with quiet():
        print('unseen')
    print('seen')
    assert capsys.readouterr().out == 'seen\n'
