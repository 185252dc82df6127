"""Reads programs compiled for GPUs: what they move, which library computes what, what is left.

XLA gives no cost analysis of these, so that traffic is read from the text: every kernel's operands
and results once, of a fusion only the parts of them that it touches.
"""

from collections.abc import Iterator
import re

from foley_jax.aot import hlo

# they compute nothing, and inside a fusion move nothing
_SEEN_THROUGH = frozenset(["bitcast", "copy", "reshape", "transpose", "convert"])
_SLICES = frozenset(["dynamic-slice", "slice", "gather"])
_SCRATCH = ("s8", "u8")  # of a library, as one more result of its call


class Program:
    """A program compiled for a GPU, from `compiled.as_text()`."""

    def __init__(self, text: str):
        self.module = hlo.Module(text)

    def traffic(self) -> Iterator[tuple[hlo.Instruction, int, float]]:
        """(instruction, how often it runs, bytes that it moves in all) of all kernels."""
        for one, by_name, times in self.module.moving():
            yield one, times, times * self._moved(one, by_name)

    def kinds(self) -> dict[str, tuple[int, float]]:
        """Kernels by name -> (how many run, bytes they move), the largest traffic first."""
        found: dict[str, tuple[int, float]] = {}
        for one, times, moved in self.traffic():
            count, total = found.get(kind(one), (0, 0.0))
            found[kind(one)] = (count + times, total + moved)
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))

    def heaviest(self, count: int) -> list[tuple[str, str, float]]:
        """(kind, scope in the traced program, bytes) of the kernels that move the most."""
        found: dict[tuple[str, str], float] = {}
        for one, _, moved in self.traffic():
            key = (kind(one), one.scope)
            found[key] = found.get(key, 0.0) + moved
        most = sorted(found.items(), key=lambda item: -item[1])[:count]
        return [(name, scope, moved) for (name, scope), moved in most]

    def loops(self) -> list[tuple[str, int, int]]:
        """(scope, how often it is entered, rounds) of every loop."""
        return [(one.scope, times, trips) for one, times, trips in self.module.loops()]

    def without_library(self) -> dict[str, int]:
        """Products that no library computes, nor Triton: what they are -> how many run."""
        found: dict[str, int] = {}
        runs = self.module.runs
        for name, instructions in self.module.computations.items():
            for one in instructions:
                if one.opcode in ("dot", "convolution") and name not in self._tiled:
                    found[one.opcode] = found.get(one.opcode, 0) + runs.get(name, 0)
        return {name: count for name, count in found.items() if count}

    @property
    def _tiled(self) -> set[str]:
        """Computations that Triton or cuDNN compile."""
        fused = (one for each in self.module.computations.values() for one in each)
        marks = ("__triton", "__cudnn", "nested_gemm")
        return {
            name
            for one in fused
            if one.opcode == "fusion" and any(mark in one.rest for mark in marks)
            for name in one.called
        }

    def _moved(self, one: hlo.Instruction, by_name: dict[str, hlo.Instruction]) -> float:
        if one.opcode == "fusion" and one.called and one.called[0] in self.module.computations:
            return _of_fusion(one, by_name, self.module.computations[one.called[0]])
        moved = hlo.moved(one, by_name)
        library = one.opcode == "custom-call" and len(one.result) > 1
        # how much of its scratch memory a library uses is not known
        return (
            moved - one.result[-1].bytes if library and one.result[-1].dtype in _SCRATCH else moved
        )


def kind(one: hlo.Instruction) -> str:
    """Returns what a kernel is called: its library's name for it, or what its fusion is of."""
    if one.opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', one.rest)
        return target[1].removeprefix("__").replace("$", " ") if target else one.opcode
    if one.opcode == "fusion":
        name = re.sub(r"_fusion$", "", re.sub(r"[.\d]+$", "", one.name))
        return f"fusion triton {name}" if "__triton" in one.rest else f"fusion {name}"
    return "cufft" if one.opcode == "fft" else one.opcode


def _of_fusion(
    one: hlo.Instruction, by_name: dict[str, hlo.Instruction], inside: list[hlo.Instruction]
) -> float:
    """Bytes that a fusion reads and writes; of what it slices or updates in place the slice."""
    uses: dict[str, list[tuple[hlo.Instruction, int]]] = {}
    for each in inside:
        for place, name in enumerate(each.operands):
            uses.setdefault(name, []).append((each, place))
    sizes = {each.name: _bytes(each) for each in inside}
    total = 0.0
    for each in inside:
        if each.opcode == "parameter" and int(each.value) < len(one.operands):
            source = by_name.get(one.operands[int(each.value)])
            on_chip = source is not None and all(a.on_chip for a in source.result)
            if not on_chip:
                total += min(sizes[each.name], _read(each.name, uses, sizes))
    return total + _written(one, inside, sizes)


def _read(
    name: str, uses: dict[str, list[tuple[hlo.Instruction, int]]], sizes: dict[str, int]
) -> float:
    """Bytes that are read of a value inside a fusion, all its uses together."""
    total = 0.0
    for each, place in uses.get(name, ()):
        if each.opcode in _SLICES and place == 0:
            total += sizes[each.name]
        elif each.opcode == "dynamic-update-slice" and place == 0:
            continue  # in place
        elif each.opcode in _SEEN_THROUGH and uses.get(each.name):
            total += _read(each.name, uses, sizes)
        else:
            return float("inf")  # all of it
    return total


def _written(one: hlo.Instruction, inside: list[hlo.Instruction], sizes: dict[str, int]) -> float:
    """Bytes of a fusion's results; of one that is updated in place those of the update."""
    by_name = {each.name: each for each in inside}
    root = inside[-1]
    results = [by_name[n] for n in root.operands] if root.opcode == "tuple" else [root]
    if len(results) != len(one.result):
        return float(sum(a.bytes for a in one.result))
    total = 0.0
    for each, array in zip(results, one.result, strict=True):
        while each.opcode in _SEEN_THROUGH and each.operands and each.operands[0] in by_name:
            each = by_name[each.operands[0]]
        update = each.operands[1] if each.opcode == "dynamic-update-slice" else None
        total += sizes.get(update, array.bytes)
    return total


def _bytes(one: hlo.Instruction) -> int:
    return sum(a.bytes for a in one.result)
