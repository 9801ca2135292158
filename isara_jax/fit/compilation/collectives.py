"""Counts the bytes that a program's devices exchange, from its compiled HLO text.

A collective counts with the size of its result on one device (a reduction: of what it
sums), times the trips of the loops around it. The trip count of a loop is the one that
the compiler annotates, or else the constant that the loop's condition compares with.

The compiler for TPU splits a collective into pieces to overlap it with products. The
pieces share a channel id and count once.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

KINDS = (
    *("all-gather", "all-reduce", "reduce-scatter"),
    *("all-to-all", "collective-permute"),
)

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)(?:e\d\w*)?\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_BODY = re.compile(r"body=%?([\w.\-]+)")
_PLACE = re.compile(r"index=(\d+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CHANNEL = re.compile(r"channel_id=(\d+)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_GROUPS = (
    re.compile(r"replica_groups=\{\{([\d,]+)\}"),
    re.compile(r"replica_groups=\[\d+,(\d+)\]"),
    re.compile(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}"),
)
_AXIS = re.compile(r"'(\w+)'=(\d+)")


@dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    kind: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return _OPERAND.findall(self.rest.partition(")")[0])

    @property
    def constant(self) -> int | None:
        value = self.rest.partition(")")[0]
        whole = self.kind == "constant" and value.removeprefix("-").isdigit()
        return int(value) if whole else None


_Text = Mapping[str, list[_Instruction]]


def collective_bytes(text: str) -> dict[str, int]:
    """Returns the bytes by kind of a program's text, largest first.

    A loop whose trip count is not known counts once.
    """
    computations, entry = _parsed(text)
    totals: dict[str, int] = defaultdict(int)
    seen: set[str] = set()
    for kind, size, channel in _walk(computations, entry, times=1):
        if channel is None or channel not in seen:
            totals[kind] += size
        if channel is not None:
            seen.add(channel)
    return dict(sorted(totals.items(), key=lambda pair: -pair[1]))


def _parsed(text: str) -> tuple[_Text, str]:
    computations: dict[str, list[_Instruction]] = {}
    entry = name = ""
    for line in text.splitlines():
        if begun := _COMPUTATION.match(line):
            name = begun[2]
            entry = name if begun[1] else entry
            computations[name] = []
        elif name and (found := _INSTRUCTION.match(line)):
            computations[name].append(_Instruction(*found.groups()))
    return computations, entry


def _walk(
    computations: _Text, name: str, *, times: int
) -> Iterator[tuple[str, int, str | None]]:
    """Yields the kind, bytes and channel of every collective that is run."""
    for instruction in computations.get(name, ()):
        kind = instruction.kind.removesuffix("-start")
        if kind in KINDS:
            channel = _CHANNEL.search(instruction.rest)
            yield (
                "reduce-scatter" if "all-reduce-scatter" in name else kind,
                times * _bytes_of(instruction, kind=kind),
                channel[1] if channel else None,
            )
        elif not instruction.kind.endswith(("-done", "-update")):
            inside = times
            if instruction.kind == "while":
                inside *= _trips(instruction, computations)
            for called in _called(instruction):
                yield from _walk(computations, called, times=inside)


def _called(instruction: _Instruction) -> list[str]:
    names = _CALLED.findall(instruction.rest)
    if branches := _BRANCHES.search(instruction.rest):
        names += _OPERAND.findall(branches[1])
    return names


def _trips(loop: _Instruction, computations: _Text) -> int:
    """Counts a loop's trips: as written down, or from 0 to its limit by its step."""
    if known := _TRIPS.search(loop.rest):
        return int(known[1])
    condition, body = _CONDITION.search(loop.rest), _BODY.search(loop.rest)
    if condition is None or body is None:
        return 1
    inside = _named(computations.get(condition[1], ()))
    for compare in inside.values():
        if compare.kind == "compare" and "direction=LT" in compare.rest:
            counter, limit = (inside.get(name) for name in compare.operands[:2])
            place = _PLACE.search(counter.rest) if counter else None
            if place and limit and (most := limit.constant) is not None:
                return -(-most // _step(computations.get(body[1], ()), int(place[1])))
    return 1


def _step(body: Iterable[_Instruction], place: int) -> int:
    """Returns what a loop's body adds to the counter at a place of its tuple."""
    inside = _named(body)
    *_, root = inside.values()
    after = inside.get(root.operands[place]) if place < len(root.operands) else None
    for name in after.operands if after and after.kind == "add" else ():
        if (added := inside.get(name)) and (constant := added.constant) is not None:
            return constant
    return 1


def _named(instructions: Iterable[_Instruction]) -> dict[str, _Instruction]:
    return {one.name: one for one in instructions}


def _bytes_of(instruction: _Instruction, *, kind: str) -> int:
    sizes = [_size(*found) for found in _ARRAY.findall(instruction.type)]
    if kind == "reduce-scatter":
        return sum(sizes) * _group_size(instruction.rest)
    if instruction.kind in ("all-gather-start", "collective-permute-start"):
        # What goes in stands before what comes out, and beside both some flags.
        arrays = [size for size in sizes if size > 4]
        return sum(arrays[len(arrays) // 2 :])
    return sum(sizes)


def _size(letters: str, bits: str, sides: str) -> int:
    count = 1
    for side in sides.split(",") if sides else ():
        count *= int(side)
    return count * (int(bits or 8) if letters != "pred" else 8) // 8


def _group_size(rest: str) -> int:
    listed, cut, named = (pattern.search(rest) for pattern in _GROUPS)
    if listed:
        return len(listed[1].split(","))
    if cut:
        return int(cut[1])
    size = 1
    if named:
        for axis, length in _AXIS.findall(named[1]):
            size *= int(length) if f"'{axis}'" in named[2] else 1
    return size
