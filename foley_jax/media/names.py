"""Names of files as text: any that a file system allows can be shown, and clips get their own."""

import re

_NO_TEXT = re.compile("[\ud800-\udfff]")


def shown(text: str) -> str:
    r"""The text with every byte that is no UTF-8 written as `\xe9`: what any output can take.

    Python keeps such bytes of file names as lone surrogates, at which a strict stream, or the
    writer of a text file, raises UnicodeEncodeError.
    """
    return _NO_TEXT.sub(_escaped, text)


def _escaped(match: re.Match) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
