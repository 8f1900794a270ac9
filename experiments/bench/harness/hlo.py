"""Parser of XLA's text of a compiled program (HLO): computations, their instructions, and the sizes of arrays."""

import dataclasses
import math
import re

_BITS = {"pred": 8, "s4": 4, "u4": 4} | {f"{kind}{bits}": bits for kind in "su" for bits in (8, 16, 32, 64)}
_BITS |= {"bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "f8e4m3fn": 8, "f8e5m2": 8}
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """Instruction of a computation.

    Attributes:
      name: unique in its computation.
      shape: of the result, as it is written; a tuple in parentheses.
      opcode: what it does, e.g. "fusion".
      operands: names of the instructions whose results it takes; of a parameter none.
      number: of a parameter, its place.
      attributes: what is written behind the operands.
      is_root: whether its result is the computation's.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    number: int | None
    attributes: str
    is_root: bool

    @property
    def source(self) -> str:
        """The path in the JAX program that it came from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def called(self) -> str | None:
        """The computation that it calls, None where it calls none."""
        found = _CALLED.search(self.attributes)
        return found and found[1]

    def attribute(self, pattern: str) -> str | None:
        """Returns the first group of a pattern in the attributes, None where it is not there."""
        found = re.search(pattern, self.attributes)
        return found and found[1]


Computation = dict[str, Instruction]  # by name, in the order of the text: operands come first


@dataclasses.dataclass(frozen=True)
class Program:
    """Program: its computations by name, and the name of that which is run."""

    computations: dict[str, Computation]
    entry: str


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """Returns (type of an element, sizes) of each array of a shape."""
    return [(kind, _sizes(sizes)) for kind, sizes in _ARRAY.findall(shape) if kind in _BITS]


def _sizes(text):
    return tuple(int(size) for size in text.split(",") if size)


def numbers(text: str | None) -> tuple[int, ...]:
    """Returns the whole numbers in a text, e.g. those of a list of axes."""
    return tuple(int(number) for number in re.findall(r"\d+", text or ""))


def count_bytes(shape: str) -> int:
    """Returns the bytes of all arrays of a shape; what is no data (a token) has none."""
    return sum(-(-_BITS[kind] * math.prod(sizes) // 8) for kind, sizes in arrays(shape))


def count_elements(shape: str) -> int:
    """Returns the number of elements of the first array of a shape; 0 where there is none."""
    found = arrays(shape)
    return math.prod(found[0][1]) if found else 0


def parse(text: str) -> Program:
    """Returns the program that `compiled.as_text()` gave."""
    computations, current, entry = {}, None, None
    for line in text.splitlines():
        if line.endswith("{") and "->" in line and not line[0].isspace():
            header = re.match(r"(ENTRY )?%?([\w.\-]+)", line)
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (instruction := _instruction(line)):
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text has no ENTRY computation")
    return Program(computations, entry)


def _instruction(line):
    head = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    rest = line[head.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    rest = rest[len(opcode) :]
    end = _closing(rest)
    inner, attributes = rest[1 : end - 1], rest[end:]
    number = int(inner) if opcode == "parameter" else None
    return Instruction(head[2], shape, opcode, tuple(_NAME.findall(inner)), number, attributes, bool(head[1]))


def _closing(text):
    """Returns the index behind the parenthesis that closes the one which the text begins with."""
    depth = 0
    for place in re.finditer(r"[()]", text):
        depth += 1 if place[0] == "(" else -1
        if not depth:
            return place.end()
    raise ValueError(f"a parenthesis is not closed: {text[:80]}")
