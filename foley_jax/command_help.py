"""What --help of a command with absl flags prints."""

from collections.abc import Sequence

from absl import flags


def usage(doc: str, names: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> str:
    """Examples first, then the flags.

    Args:
      doc: the command's own docstring.
      names: of its flags, in the order in which they are shown.
      values: where they are defined.
    """
    lines = [doc, "flags:"]
    for name in names:
        flag = values[name]
        default = "" if flag.default in (None, False) else f" (default: {flag.default})"
        lines.append(f"  --{name}: {flag.help}{default}")
    return "\n".join(lines)
