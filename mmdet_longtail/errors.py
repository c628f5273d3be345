"""The error that the package shows to its users, and its one-line text."""


class LongTailError(ValueError):
    """Something the user wrote or passed cannot work.

    The message is one line that names the file, field, class or config key,
    what was expected, what was found, and the way out. Tools print that line
    and exit with status 1.
    """


def one_line(error: object) -> str:
    """Return the text of an error without line breaks."""
    return ' '.join(str(error).split())
