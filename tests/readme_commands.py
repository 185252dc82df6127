"""Tests what is wrong with a command line that a README names; an empty list if nothing is."""

import argparse
import ast
import configparser
import contextlib
import functools
import importlib
import importlib.util
import io
from pathlib import Path
import re
import shlex
from unittest import mock

import ml_collections

ROOT = Path(__file__).parents[1]
GAP = "..."  # stands for arguments that a README leaves out


def wrong(line: str) -> list[str]:
    """Returns complaints about the first command in a line: python -m, bash launch/, pip install.

    Args:
      line: of a code block or code span, without continuation marks; anything else is no command.
    """
    found = re.search(r"\bpython -m (?=[a-z])|\bbash (?=launch/)|\bpip install ", line)
    if not found:
        return []
    words = shlex.split(line[found.end() :], comments=True)
    check = {"python": _module, "bash": _script, "pip": _extras}[found.group().split()[0]]
    return [f"{shlex.join(words)}: {complaint}" for complaint in check(words)]


def _module(words: list[str]) -> list[str]:
    name, args = words[0], words[1:]
    if not exists(name):
        return ["no such module"]
    command = f"{name}.__main__" if exists(f"{name}.__main__") else name
    path = Path(importlib.util.find_spec(command).origin)
    if "__main__" not in path.read_text():
        return ["the module is no command"]
    if not args:
        return []  # named, not called
    if "DEFINE_" in path.read_text():
        return _absl(path, args)
    return _argparse(command, args)


def exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class Parsed(BaseException):
    """A command's parser took its arguments; carries the parser."""


def _argparse(module: str, args: list[str]) -> list[str]:
    """Lets the command's own parser read the arguments, and stops it there."""
    parse_args = argparse.ArgumentParser.parse_args
    only_names = GAP in " ".join(args)

    def parse_and_stop(self, args=None, namespace=None):
        if not only_names:
            parse_args(self, args, namespace)
        raise Parsed(self)

    main, error = importlib.import_module(module).main, io.StringIO()
    patch = mock.patch.object(argparse.ArgumentParser, "parse_args", parse_and_stop)
    try:
        with patch, contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            main(args)
    except Parsed as parsed:
        known = {name for action in parsed.args[0]._actions for name in action.option_strings}
        return _unknown(args, known) if only_names else []
    except SystemExit as end:
        return [error.getvalue().strip().split("\n")[-1]] if end.code else []
    raise AssertionError(f"{module} parses nothing")


def _unknown(args: list[str], known: set[str]) -> list[str]:
    options = [arg.partition("=")[0] for arg in args if arg.startswith("--") and arg != "--"]
    return [f"no option {option}" for option in options if option not in known]


def _absl(path: Path, args: list[str]) -> list[str]:
    """Checks flags by their definitions, and configs by loading them."""
    own, rest = args, []
    if "--" in args:
        own, rest = args[: args.index("--")], args[args.index("--") + 1 :]
    configs = [arg for arg in own if re.match(r"--(config|guide)(\.|=)", arg)]
    others = [arg for arg in own if arg not in configs]
    bad = _unknown(others, {f"--{name}" for name in defined(path)} | {"--help"})
    bad += [complaint for arg in configs for complaint in _config(arg, own)]
    return bad + (_argparse("foley_jax.evaluation.__main__", [*rest, GAP]) if rest else [])


@functools.cache
def defined(path: Path) -> set[str]:
    """Returns the names of the absl flags that a file defines."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    calls = [call for call in calls if getattr(call.func, "attr", "").startswith("DEFINE_")]
    return {call.args[0].value for call in calls}


def _config(arg: str, args: list[str]) -> list[str]:
    name, _, value = arg.removeprefix("--").partition("=")
    flag, _, field = name.partition(".")
    if not field:
        try:
            config(value)
        except (OSError, ValueError, ImportError) as error:
            return [f"{arg}: {error}"]
        return []
    files = [other.partition("=")[2] for other in args if other.startswith(f"--{flag}=")]
    return [] if any(has_field(config(file), field) for file in files) else [f"no field {field}"]


@functools.cache
def config(name: str) -> ml_collections.ConfigDict:
    """Returns the config of "configs/FILE.py" or "configs/FILE.py:VARIANT"."""
    path, _, variant = name.partition(":")
    if not (ROOT / path).is_file():
        raise FileNotFoundError(f"no config {path}")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return module.get_config(variant) if variant else module.get_config()


def has_field(tree: ml_collections.ConfigDict, field: str) -> bool:
    """Whether a config has a dotted field; parts of `init_from` may have any name."""
    for part in field.split("."):
        if not isinstance(tree, ml_collections.ConfigDict) or part not in tree:
            return False
        if part == "init_from":
            return True
        tree = tree[part]
    return True


def _script(words: list[str]) -> list[str]:
    path, args = ROOT / words[0], words[1:]
    if not path.is_file():
        return ["no such script"]
    own, rest = args, []
    if "--" in args:
        own, rest = args[: args.index("--")], args[args.index("--") + 1 :]
    known = set(re.findall(r"--[a-z_-]+", path.read_text()))
    training = [] if GAP in rest else rest
    return _unknown(own, known) + _absl(ROOT / "foley_jax/main.py", training)


def _extras(words: list[str]) -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    known = setup["options.extras_require"]
    asked = [
        extra
        for word in words
        for found in re.findall(r"\[(.+)\]", word)
        for extra in found.split(",")
    ]
    return [f"no extra {extra}" for extra in asked if extra not in known]
