"""Reads compiled programs: what they move between chips and memory, loops counted as they run.

XLA's own cost analysis counts the body of a loop once, however often it runs. Its text says how
often (`known_trip_count`), which instructions stay in on-chip memory (`S(1)` in their layout) and
which chips talk to each other (`replica_groups`).
"""

from collections.abc import Iterator
import dataclasses
import functools
import math
import re

BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s4": 1,
    "u4": 1,
    "s16": 2,
    "u16": 2,
    "f16": 2,
    "bf16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
    "c64": 8,
    "c128": 16,
}
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)
# they move nothing themselves
_FREE = frozenset(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "while",
        "conditional",
        "call",
        "after-all",
        "partition-id",
        "replica-id",
        "iota",
    ]
)
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"^([a-z][\w\-]*)\(")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result."""

    bytes: int
    on_chip: bool
    dtype: str


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program; `value` is a constant's, or a parameter's number."""

    name: str
    opcode: str
    result: tuple[Array, ...]
    operands: tuple[str, ...]
    called: tuple[str, ...]
    trips: int | None
    value: str
    rest: str

    @property
    def scope(self) -> str:
        """Where it comes from in the traced program."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of one chip.

    Attributes:
      kind: of `COLLECTIVES`.
      bytes: of the whole array: the result of a gather, what goes into a reduction.
      group: chips that take part.
      count: how often it runs.
    """

    kind: str
    bytes: int
    group: int
    count: int

    @property
    def sent(self) -> float:
        """Bytes that a chip sends in all, by the ring algorithm."""
        if self.kind == "collective-permute":
            return float(self.bytes * self.count)
        share = (self.group - 1) / self.group
        return self.count * self.bytes * share * (2 if self.kind == "all-reduce" else 1)


class Module:
    """A compiled program, from `compiled.as_text()`."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] | None = None
        for line in text.splitlines():
            if (
                line.rstrip() == "}"
            ):  # kernels have attributes of several lines, which end in "}, ..."
                current = None
            elif line.startswith(("%", "ENTRY ")) and line.rstrip().endswith("{"):
                head = (
                    line.removeprefix("ENTRY ").split("(", 1)[0].strip().lstrip("%").split(" ")[0]
                )
                current = self.computations.setdefault(head, [])
                if line.startswith("ENTRY"):
                    self.entry = head
            elif current is not None:
                found = _INSTRUCTION.match(line)
                if found:
                    current.append(_parse(found[2], found[3]))

    @functools.cached_property
    def runs(self) -> dict[str, int]:
        """Computation -> how often a call runs it; loops of unknown length count once."""
        counts: dict[str, int] = {}

        def visit(name: str, times: int) -> None:
            counts[name] = counts.get(name, 0) + times
            for one in self.computations.get(name, ()):
                for called in one.called:
                    visit(called, times * self._trips(one))

        visit(self.entry, 1)
        return counts

    def _trips(self, one: Instruction) -> int:
        """How often an instruction runs what it calls; 1 where that is not known.

        Where a loop does not say so itself, as on TPUs, its condition compares with one number.
        """
        if one.opcode != "while" or one.trips is not None:
            return one.trips or 1
        condition = re.search(r"condition=%?([\w.\-]+)", one.rest)
        inside = self.computations.get(condition[1], ()) if condition else ()
        constants = (each.value for each in inside if each.opcode == "constant")
        limits = {value for value in constants if value.isdigit()}
        return max(1, int(limits.pop())) if len(limits) == 1 else 1

    @functools.cached_property
    def _inside(self) -> set[str]:
        """Computations that are the inside of one instruction: their values are not in memory."""
        inner: set[str] = set()

        def mark(name: str) -> None:
            if name not in inner:
                inner.add(name)
                for one in self.computations.get(name, ()):
                    for called in one.called:
                        mark(called)

        for instructions in self.computations.values():
            for one in instructions:
                if one.opcode not in ("while", "conditional", "call", "async-start"):
                    for called in one.called:
                        mark(called)
        return inner

    def collectives(self) -> list[Collective]:
        """Every collective that runs."""
        found = []
        for name, times in self.runs.items():
            by_name = {one.name: one for one in self.computations.get(name, ())}
            for one in by_name.values():
                kind = one.opcode.removesuffix("-start")
                if kind in COLLECTIVES:
                    found.append(_collective(kind, one, by_name, name, times))
        return [one for one in found if one.group > 1 or one.kind == "collective-permute"]

    def traffic(self, *, loops: bool = True) -> float:
        """Bytes that instructions read from and write to the chip's memory.

        Every operand and result once, but for those in on-chip memory. Fused instructions count
        as one. What they read of a large operand may be less.

        Args:
          loops: count a loop's body as often as it runs; else once, as XLA does.
        """
        return sum(bytes_ for _, bytes_ in self.traffic_by_instruction(loops=loops))

    def traffic_by_instruction(self, *, loops: bool = True) -> Iterator[tuple[Instruction, float]]:
        """(instruction, bytes) of all that moves something."""
        for one, by_name, times in self.moving():
            yield one, (times if loops else 1) * moved(one, by_name)

    def moving(self) -> Iterator[tuple[Instruction, dict[str, Instruction], int]]:
        """(instruction, those beside it by name, how often it runs) of all that moves something."""
        for name, times in self.runs.items():
            if name in self._inside:
                continue
            by_name = {one.name: one for one in self.computations.get(name, ())}
            for one in by_name.values():
                if one.opcode not in _FREE and not one.opcode.endswith("-done"):
                    yield one, by_name, times

    def loops(self) -> Iterator[tuple[Instruction, int, int]]:
        """(loop, how often it is entered, how often its body then runs) of every loop."""
        for name, times in self.runs.items():
            for one in self.computations.get(name, ()):
                if one.opcode == "while":
                    yield one, times, self._trips(one)


def _parse(name: str, text: str) -> Instruction:
    """`text` is what follows `name =`: type, opcode, operands, attributes."""
    end = _end_of_type(text)
    kind, rest = text[:end], text[end:].lstrip()
    opcode = _OPCODE.match(rest)
    inside, attributes = _split_call(rest[opcode.end() - 1 :]) if opcode else ("", rest)
    called = []
    for key, value in _CALLED.findall(attributes):
        if key != "to_apply" or (opcode and opcode[1] == "call"):
            called += [part.strip().lstrip("%") for part in value.strip("{}").split(",")]
    trips = _TRIPS.search(attributes)
    return Instruction(
        name=name,
        opcode=opcode[1] if opcode else "",
        result=tuple(_arrays(kind)),
        operands=tuple(re.findall(r"%([\w.\-]+)", inside)),
        called=tuple(called),
        trips=int(trips[1]) if trips else None,
        value=inside if opcode and opcode[1] in ("constant", "parameter") else "",
        rest=attributes,
    )


def _end_of_type(text: str) -> int:
    """Where the type ends: at the first blank outside of brackets."""
    depth = 0
    for i, letter in enumerate(text):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == " " and depth == 0:
            return i
    return len(text)


def _split_call(text: str) -> tuple[str, str]:
    """ "(operands), attributes" -> both."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:i], text[i + 1 :]
    return text, ""


def _arrays(kind: str) -> Iterator[Array]:
    for name, shape, layout in _ARRAY.findall(kind):
        if name in BYTES or name.startswith("f8"):
            count = math.prod(int(n) for n in shape.split(",") if n)
            yield Array(count * BYTES.get(name, 1), "S(1)" in layout, name)


def moved(one: Instruction, by_name: dict[str, Instruction]) -> int:
    """Bytes in memory that an instruction reads and writes."""
    written = sum(a.bytes for a in one.result if not a.on_chip)
    if one.opcode == "dynamic-update-slice":  # in place: the slice alone is written
        update = by_name.get(one.operands[1]) if len(one.operands) > 1 else None
        return 2 * sum(a.bytes for a in update.result) if update else written
    if one.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * sum(a.bytes for a in one.result)
    read = 0
    for name in one.operands:
        source = by_name.get(name)
        read += sum(a.bytes for a in source.result if not a.on_chip) if source else 0
    if one.opcode.endswith("-start"):  # its result holds its operands again
        return read
    return read + written


def _collective(
    kind: str, one: Instruction, by_name: dict[str, Instruction], computation: str, times: int
) -> Collective:
    sizes = [a.bytes for a in one.result]
    sources = [by_name[name] for name in one.operands if name in by_name]
    into = sum(a.bytes for source in sources for a in source.result)
    if kind == "all-gather":
        # "-start" has (operands, results)
        size = sum(sizes) - (into if one.opcode.endswith("-start") and len(sizes) > 1 else 0)
    else:
        size = into or max(sizes, default=0)
    # one instruction of TPUs, which reduces and keeps a part, is written as two
    if kind == "all-reduce" and "all-reduce-scatter" in computation:
        kind = "reduce-scatter"
    return Collective(kind, size, group_size(one.rest), times)


def group_size(attributes: str) -> int:
    """Chips of one group, from `replica_groups` in any of its notations; 1 if there is none."""
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):
        return int(found[2])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", found[2]))
    return 1
