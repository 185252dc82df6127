"""Parts that commands with absl flags have in common: their --help, and how they end."""

from collections.abc import Callable, Sequence
import sys

from absl import app, flags


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


def start(
    run: Callable[[Sequence[str]], None], parse: Callable[[Sequence[str]], list[str]]
) -> None:
    """Runs a command whose flags are its own; an expected error is one line and exit code 1.

    Args:
      run: the command, given what `parse` returns.
      parse: of sys.argv; fills the command's own FlagValues.
    """

    def parse_all(argv: Sequence[str]) -> list[str]:
        rest = parse(argv)
        flags.FLAGS.mark_as_parsed()  # app.run asks for it
        return rest

    try:
        app.run(run, flags_parser=parse_all)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
