"""Tables as text and as CSV files."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mmdet_longtail.utils.fileio import write_atomic


def make_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[Any]],
    title: str | None = None,
) -> Table:
    """Build a table; all columns but the first are right-aligned."""
    table = Table(title=title, box=box.SIMPLE)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify='right' if number else 'left')
    for row in rows:
        table.add_row(*map(str, row))
    return table


def table_text(table: Table, width: int = 79) -> str:
    """Render a table as text of at most ``width`` columns."""
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue()


def write_csv(path: str | Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write columns of equal length, by heading, as a CSV file, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomic(path, text.getvalue())


def format_cells(
    values: Iterable[float], form: str = '.6g', missing: str = ''
) -> list[str]:
    """Format numbers by a format specification, and NaN as another text."""
    return [
        missing if math.isnan(value) else format(value, form)
        for value in values
    ]
