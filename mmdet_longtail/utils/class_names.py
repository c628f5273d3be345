"""Names of classes: compared between sources, and mapped by a file."""

import csv
import difflib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.utils.fileio import read_text
from mmdet_longtail.utils.tables import unescape_formula

MIN_SIMILARITY = 0.9  # of two spellings; 0.98 for those of LVIS
MAX_LENGTH = 40  # of a name in a list


def list_names(names: Sequence[str], limit: int = 10) -> str:
    """Join the first names of a list, and count the others.

    Each name is one line of at most 40 characters.
    """
    shown = [' '.join(name.split())[:MAX_LENGTH] for name in names[:limit]]
    others = len(names) - len(shown)
    more = f' and {others:,} more' if others else ''
    return ', '.join(shown) + more


def dataset_classes(dataset: Any) -> tuple[str, ...] | None:
    """Return the class names of a dataset; None where it has none.

    Raises:
        LongTailError: If they are one string, such as ('a') without a comma.
    """
    metainfo = dataset.metainfo
    if isinstance(metainfo, Sequence):  # a concatenation of different ones
        metainfo = metainfo[0]
    classes = metainfo.get('classes')
    check(
        not isinstance(classes, str),
        f'metainfo.classes of {type(dataset).__name__} is the string '
        f'{classes!r}, expected a tuple of names; one name needs a comma: '
        f'classes=({classes!r},)',
    )
    return None if classes is None else tuple(classes)


def check_same_classes(
    expected: Sequence[str],
    found: Sequence[str],
    expected_in: str,
    found_in: str,
    way_out: str = 'use config, checkpoint and statistics of one dataset',
    may_rename: bool = False,
) -> None:
    """Compare two lists of class names by label.

    Two names may be spellings of one class: the files of LVIS and mmdet
    spell one of its classes differently. Spellings are similar, have the
    same digits, and neither is a name in the other list. With ``may_rename``
    they need not be similar, as in an annotation file and the dataset that
    reads it by position. The message names the owners of the names,
    ``expected_in`` and ``found_in``, and the way out.

    Raises:
        LongTailError: Naming the first class that differs.
    """
    check(
        len(expected) == len(found),
        f'{found_in} has {len(found)} classes, but {expected_in} has '
        f'{len(expected)}: {way_out}',
    )
    in_both = {*expected} & {*found}
    for label, (ours, theirs) in enumerate(zip(expected, found)):
        check(
            ours == theirs
            or (
                not {ours, theirs} & in_both
                and (may_rename or _are_spellings(ours, theirs))
            ),
            f'class {label} is {theirs!r} in {found_in}, but {ours!r} in '
            f'{expected_in}: {way_out}',
        )


def _are_spellings(one: str, other: str) -> bool:
    similarity = difflib.SequenceMatcher(None, one, other).ratio()
    digits = [re.findall(r'\d', name) for name in (one, other)]
    return similarity >= MIN_SIMILARITY and digits[0] == digits[1]


def check_counted_classes(ground_truth: Any, statistics: Any) -> None:
    """Check that ClassStatistics count the classes of a GroundTruth."""
    check_same_classes(
        ground_truth.class_names,
        statistics.class_names,
        ground_truth.source,
        f'the training set ({statistics.source or "class statistics"})',
    )


def read_class_map(path: str | Path, extra: Any, main: Any) -> dict[str, str]:
    """Map extra classes to main ones by a CSV file, ``extra,main``.

    Several extra classes may map to one main class, but not the reverse.
    Classes that no line names are not in the result. Both owners of classes
    have ``class_names``, and a ``source`` for messages.

    Raises:
        LongTailError: If the file is missing or empty, lacks a column, names
            an unknown class, or names an extra class twice.
    """
    reader = csv.DictReader(io.StringIO(read_text(path)))
    try:
        lines = [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        raise LongTailError(f'{path}: not a CSV file ({error})') from None
    check(
        {'extra', 'main'} <= {*(reader.fieldnames or ())} and lines,
        f'{path}: has the columns {reader.fieldnames!s:.60} in {len(lines)} '
        'lines, expected extra and main with class names',
    )
    main_of: dict[str, str] = {}
    known = {*extra.class_names}, {*main.class_names}
    for number, line in lines:
        columns = zip(('extra', 'main'), (extra, main), known, strict=True)
        for column, owner, names in columns:
            name = line[column] or ''
            # Names that come from a CSV file of ours may be escaped.
            if unescape_formula(name) in names:
                name = line[column] = unescape_formula(name)
            if name not in names:
                alike = difflib.get_close_matches(name, owner.class_names, 1)
                hint = f', is {alike[0]!r} meant?' if alike else ''
                raise LongTailError(
                    f'{path}, line {number}: {column} is {name!r}, which is '
                    f'not a class of {owner.source}{hint}'
                )
        check(
            line['extra'] not in main_of,
            f'{path}, line {number}: {line["extra"]!r} is mapped a second '
            'time; expected each extra class once',
        )
        main_of[line['extra']] = line['main']
    return main_of
