"""Tables as text and as CSV files."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.fileio import write_atomic

# Apostrophes may stand before it, so that the reverse is unique.
FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


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


def make_frame(columns: Mapping[str, Iterable[Any]]) -> Any:
    """Return columns of equal length, by heading, as a pandas DataFrame.

    Raises:
        LongTailError: If pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError:
        raise LongTailError(
            'pandas is not installed, which makes a DataFrame; install it '
            '(pip install pandas)'
        ) from None
    return pandas.DataFrame(dict(columns))


def write_csv(path: str | Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write columns of equal length, by heading, as a CSV file, atomically.

    Text that a spreadsheet would take for a formula is escaped, also in
    headings: see `escape_formula`.
    """
    lines: list[str] = []
    # With its own line terminator it also quotes a cell that has a \\r.
    writer = csv.writer(SimpleNamespace(write=lines.append))
    for row in (columns, *zip(*columns.values(), strict=True)):
        writer.writerow(map(escape_formula, row))
    text = ''.join(line.removesuffix('\r\n') + '\n' for line in lines)
    write_atomic(path, text)


def escape_formula(cell: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would calculate.

    Such text, which may be the name of a class, begins with one of ``= + - @``
    tab and line breaks, and is no number. `unescape_formula` is the reverse.
    """
    if isinstance(cell, str) and FORMULA.match(cell) and not is_number(cell):
        return f"'{cell}"
    return cell


def unescape_formula(cell: str) -> str:
    """Return the text that `escape_formula` was given."""
    if cell.startswith("'") and escape_formula(cell[1:]) == cell:
        return cell[1:]
    return cell


def is_number(text: str) -> bool:
    """Return whether text is a number, such as -1.5."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def format_cells(
    values: Iterable[float], form: str = '.6g', missing: str = ''
) -> list[str]:
    """Format numbers by a format specification, and NaN as another text."""
    return [
        missing if math.isnan(value) else format(value, form)
        for value in values
    ]
