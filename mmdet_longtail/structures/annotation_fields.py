"""Fields of COCO and LVIS annotation files, and faults of their structure."""

import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmdet_longtail.errors import check
from mmdet_longtail.structures.findings import Finding, Severity

SECTIONS = ('categories', 'images', 'annotations')


def is_number(value: Any) -> bool:
    """Return whether a value of a JSON file is a finite number."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def is_box(value: Any) -> bool:
    """Return whether a value is a list of four finite numbers."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(map(is_number, value))
    )


def box_array(boxes: Iterable[Any]) -> np.ndarray:
    """Return boxes as a finite array (m, 4) float64.

    Raises:
        ValueError: If one is not four finite numbers.
    """
    array = np.array([*boxes] or np.zeros((0, 4)))
    # Numpy would take text for numbers, if it were told the type.
    if (
        array.dtype.kind not in 'iuf'
        or array.shape[1:] != (4,)
        or not np.isfinite(array).all()
    ):
        raise ValueError('not four finite numbers')
    return array.astype(np.float64)


def numbers(entries: Sequence[Mapping], key: str) -> np.ndarray:
    """Return a field of each entry (m,) float64, NaN if it is no number."""
    values = [entry.get(key) for entry in entries]
    try:
        array = np.array(values or np.zeros(0))
    except ValueError:  # lists of different lengths
        array = np.array(None)
    if array.dtype.kind in 'iuf' and array.ndim == 1:
        return array.astype(np.float64)
    return np.array([v if is_number(v) else np.nan for v in values], float)


class Report:
    """Findings of one file.

    Args:
        source (str): Path of the file.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.findings: list[Finding] = []

    def add(self, severity: Severity, message: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(severity, f'{self.source}: {message}'))

    def raise_first(self) -> None:
        """Raise the first error, if there is one.

        Raises:
            LongTailError: With its message.
        """
        for finding in self.findings:
            check(finding.severity < Severity.ERROR, finding.message)

    def add_rows(
        self,
        severity: Severity,
        section: str,
        rows: Sequence[int] | np.ndarray,
        fact: Callable[[int], str] | str,
        way_out: str,
    ) -> bool:
        """Add a finding about rows of a section; return whether there is one.

        The fact is about the first row.
        """
        if not len(rows):
            return False
        first = int(rows[0])
        text = fact if isinstance(fact, str) else fact(first)
        more = f' (and {len(rows) - 1:,} more)' if len(rows) > 1 else ''
        self.add(severity, f'{section}[{first}] {text}{more}; {way_out}')
        return True


def true_rows(is_wrong: Iterable[Any]) -> list[int]:
    """Return the positions of what is true."""
    return [i for i, wrong in enumerate(is_wrong) if wrong]


def are_objects(report: Report, section: str, entries: list) -> bool:
    """Check that entries are JSON objects."""
    rows = true_rows(not isinstance(entry, dict) for entry in entries)
    way_out = 'expected {"id": ...}'
    error = Severity.ERROR
    return not report.add_rows(
        error, section, rows, 'is not an object', way_out
    )


def have_ids(
    report: Report, section: str, entries: list, kinds: tuple[type, ...]
) -> bool:
    """Check that entries are objects with an id of a kind, each once."""
    if not are_objects(report, section, entries):
        return False
    if report.add_rows(
        Severity.ERROR,
        section,
        true_rows(not isinstance(e.get('id'), kinds) for e in entries),
        "has no 'id' that is a whole number or a string",
        'give each entry an id of its own',
    ):
        return False
    ids = [e['id'] for e in entries]
    if len({*ids}) == len(ids):
        return True
    times_of = Counter(ids)
    report.add_rows(
        Severity.ERROR,
        section,
        true_rows(times_of[i] > 1 for i in ids),
        lambda i: f"has the 'id' {ids[i]!r}, which is there more than once",
        'number the entries of the whole file',
    )
    return False


def _check_references(
    report: Report, annotations: list, key: str, section: str, entries: list
) -> None:
    """Check that annotations have the id of an entry of a section."""
    known = {
        entry['id']: None
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get('id'), int | str)
    }
    ids = [annotation.get(key) for annotation in annotations]
    try:
        if {*ids} <= known.keys():
            return
    except TypeError:  # a list
        pass
    report.add_rows(
        Severity.ERROR,
        'annotations',
        true_rows(not isinstance(i, Hashable) or i not in known for i in ids),
        lambda i: (
            f'has {key} {ids[i]!r:.60}, but '
            + unknown_id(ids[i], section, known)
            if key in annotations[i]
            else f'has no {key!r}'
        ),
        f"give it the id of an entry of '{section}'",
    )


def unknown_id(value: Any, section: str, known: Mapping[Hashable, Any]) -> str:
    """Return a clause about an id that is not in a section."""
    if other := other_type(value, known):
        return f"'{section}' has {other}"
    return f"no entry of '{section}' has this id"


def other_type(id: Any, known: Iterable[Any]) -> str:
    """Explain an unknown id that differs from a known one in its type only.

    The result is '' for any other id.
    """
    for other in known:
        if str(other) == str(id):
            kinds = type(other).__name__, type(id).__name__
            return (
                f'{other!r}: the ids differ in their type only, use '
                f'{kinds[0]} or {kinds[1]} in both'
            )
    return ''


def check_field(
    report: Report,
    section: str,
    entries: list,
    key: str,
    is_right: Callable[[Any], bool],
    expected: str,
) -> bool:
    """Check a field that each entry needs."""
    return not report.add_rows(
        Severity.ERROR,
        section,
        true_rows(not is_right(entry.get(key)) for entry in entries),
        lambda i: (
            f'has {key} {entries[i][key]!r:.60}'
            if key in entries[i]
            else f'has no {key!r}'
        ),
        f'expected {expected}',
    )


def find_structure_faults(content: Any, source: str) -> tuple[Report, set]:
    """Find faults of what every reader of an annotation file needs.

    These are the sections, ids, class names, references to ids and boxes.

    Returns:
        tuple[Report, set]: Errors, and the names of the sections whose
        entries are objects with an id of their own.
    """
    report = Report(source)
    error = Severity.ERROR
    if not isinstance(content, dict):
        report.add(
            error,
            'expected a JSON object with categories, images and annotations, '
            f'found a {type(content).__name__}',
        )
        return report, set()
    for key in SECTIONS:
        if content.get(key) is None:
            found = ', '.join(map(repr, content)) or 'nothing'
            report.add(
                error,
                f"the list '{key}' is missing, found {found}; expected COCO "
                'or LVIS annotations of a training set',
            )
        elif not isinstance(content[key], list):
            report.add(
                error,
                f"'{key}' is a {type(content[key]).__name__}, expected a "
                'list of objects like {"id": 1, ...}',
            )
        elif key != 'annotations' and not content[key]:
            report.add(error, f"'{key}' is empty, expected entries")
    if report.findings:
        return report, set()
    annotations = content['annotations']
    sound = {
        section
        for section in ('categories', 'images')
        if have_ids(report, section, content[section], (int, str))
    }
    if 'categories' in sound and not check_field(
        report,
        'categories',
        content['categories'],
        'name',
        lambda name: isinstance(name, str),
        'the name of the class',
    ):
        sound.remove('categories')
    if not are_objects(report, 'annotations', annotations):
        return report, sound
    for key, section in (
        ('image_id', 'images'),
        ('category_id', 'categories'),
    ):
        _check_references(report, annotations, key, section, content[section])
    try:
        box_array(a.get('bbox') for a in annotations)
    except ValueError:
        check_field(
            report,
            'annotations',
            annotations,
            'bbox',
            is_box,
            'four finite numbers [x, y, width, height] in pixels',
        )
    return report, sound | {'annotations'}
