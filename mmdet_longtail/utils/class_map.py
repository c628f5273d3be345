"""Which class of one data set is which class of another."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path

from mmdet_longtail.errors import LongTailError

COLUMNS = ('extra', 'main')


def read_class_map(
    path: str | Path,
    extra_names: Sequence[str],
    main_names: Sequence[str],
    extra_source: str,
    main_source: str,
) -> dict[str, str]:
    """Read a CSV file with the columns ``extra`` and ``main``.

    Several extra classes may become one main class, but not the other way.
    Classes that no line names are left out.

    Args:
        path (str | Path): The CSV file.
        extra_names (Sequence[str]): Classes that ``extra`` may name.
        main_names (Sequence[str]): Classes that ``main`` may name.
        extra_source (str): Where the extra classes are from, for messages.
        main_source (str): Where the main classes are from.

    Returns:
        dict[str, str]: Main class of each extra class.

    Raises:
        LongTailError: If the file is missing or empty, lacks a column, names
            an unknown class, or names an extra class twice.
    """
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file)
            lines = [(reader.line_num, line) for line in reader]
    except FileNotFoundError:
        raise LongTailError(f'{path}: no such file; check the path') from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LongTailError(
            f'{path}: not a CSV file that can be read ({error})'
        ) from None
    found = reader.fieldnames or ()
    for column in COLUMNS:
        if column not in found:
            raise LongTailError(
                f'{path}: no column {column!r}, found '
                f'{", ".join(map(repr, found)) or "nothing"}; expected the '
                'columns extra and main with class names'
            )
    if not lines:
        raise LongTailError(f'{path}: maps no class, expected at least one')
    main_of: dict[str, str] = {}
    for number, line in lines:
        for column, names, source in (
            ('extra', extra_names, extra_source),
            ('main', main_names, main_source),
        ):
            name = line[column] or ''
            if name not in names:
                alike = difflib.get_close_matches(name, names, 1)
                hint = f', is {alike[0]!r} meant?' if alike else ''
                raise LongTailError(
                    f'{path}, line {number}: {column} is {name!r}, which is '
                    f'no class of {source}{hint}'
                )
        if line['extra'] in main_of:
            raise LongTailError(
                f'{path}, line {number}: {line["extra"]!r} is mapped a '
                'second time; expected each extra class once'
            )
        main_of[line['extra']] = line['main']
    return main_of
