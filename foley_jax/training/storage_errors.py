"""Errors and log lines of orbax and tensorstore, which run to pages, in a few words."""

import logging
import os
import re

# what reading a damaged file that can still be parsed comes to
_NONSENSE = (AttributeError, AssertionError, IndexError, KeyError, TypeError)
_MOST = 300  # letters of a reason
_KNOWN_BY_CHECKSUM = ("Failed to json parse Metadata file", "metadata contains unknown key")


def in_words(error: BaseException) -> str:
    """Returns a line about an error of reading or writing a checkpoint: kind and reason."""
    if isinstance(error, _NONSENSE):
        return f"what its metadata says makes no sense: {type(error).__name__} {error}"
    return f"{type(error).__name__}: {_reason(str(error))}"


def _reason(text: str) -> str:
    """tensorstore puts the operating system's reason, and its own, between pages of settings."""
    text = " ".join(text.split())
    found = re.search(r"os_error_code='(\d+)'", text)
    reason = f"{os.strerror(int(found[1]))}: " if found else ""
    text = re.sub(r" \[(tensorstore_spec|source locations).*", "", text)
    found = re.search(r"Error decoding (?!local file).*", text)
    if found:  # behind the names of all layers that the data came through
        text = found[0]
    if len(text) > _MOST:
        text = f"{text[: _MOST // 2 - 10]} ... {text[-_MOST // 2 + 10 :]}"
    return reason + text


def quieten() -> None:
    """Leaves out of the log what `checkpoint` says in a line, or finds by checksums."""
    logging.getLogger("absl").addFilter(_is_news)
    logging.getLogger("asyncio").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    if record.name == "asyncio":  # reading goes on beside an error that was told already
        return not re.search("orbax|tensorstore", record.getMessage(), re.IGNORECASE)
    if "orbax" not in record.pathname:
        return True
    known = any(words in record.getMessage() for words in _KNOWN_BY_CHECKSUM)
    return not (record.exc_info or known)
