"""Costs of a compiled program's kernels: bytes of memory that each touches, and operations of its products.

What a kernel slices or gathers counts as what it takes, what it updates in place as the update, a loop's body as often
as the loop turns. Operations are those of matrix products and of cuDNN's attention: all else is bound by memory.
Convolutions count as the products that they are on a TPU; others have bytes alone. Our own attention of beam search
reads what is there of its cache, and counts as at position TOKEN.
"""

import collections
import dataclasses
import functools
import math

from experiments.bench.harness.hlo import Program, arrays, count_bytes, count_elements, numbers

TOKEN = 20  # position, from 0, of the token of a search whose costs are counted
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "optimization-barrier"}
_FREE |= {"partition-id", "replica-id", "copy-done", "async-done"}
_SLICING = {"slice", "dynamic-slice", "gather"}
_IN_PLACE = {"dynamic-update-slice", "scatter"}
_WHOLE = {"dot", "convolution", "custom-call", "sort", "reduce-window", "while", "conditional", "call", "rng"}
_LHS_AXES = r'(?:lhs_contracting_dims=\{|"lhs_contracting_dimensions":\[)([^\]}]*)'
_BACKWARD = 2.5  # products of attention's backward pass by those of its forward pass: five by two


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Kernel of a program, over all its launches.

    Attributes:
      name: of the instruction.
      kind: of kernel, e.g. "loop-fusion" or a library's.
      source: the path in the JAX program that it came from.
      launches: how often it is started.
      bytes: that it reads and writes.
      flops: operations of its products.
      loops: the loops around it whose turns are not known before they are run; each counts as one turn.
    """

    name: str
    kind: str
    source: str
    launches: int
    bytes: int
    flops: float
    loops: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Fusion:
    read: dict[int, int | None]  # bytes by parameter; None for all of it
    written: int
    flops: float


def kernels(program: Program, *, scalars: bool = True) -> list[Kernel]:
    """Returns the kernels of a program, in its order; without `scalars` none of what gives a single number.

    On a GPU that is a kernel like any other, on a TPU the core does it that leads the program.
    """
    return list(_Counter(program, scalars).walk(program.entry, 1, ()))


class _Counter:
    def __init__(self, program, scalars):
        self._computations, self._scalars = program.computations, scalars
        self._fusion = functools.cache(self._measured_fusion)

    def walk(self, name, turns, loops):
        """Yields the kernels of a computation that is run so many times."""
        computation = self._computations[name]
        for one in computation.values():
            if one.opcode in _FREE or not (self._scalars or _gives_an_array(one)):
                continue
            if one.opcode == "while":
                known = one.attribute(r'known_trip_count":\{"n":"(\d+)"')
                inside = loops if known else (*loops, one.name)
                inner = turns * int(known or 1)
                if not known:
                    yield from self.walk(one.attribute(r"condition=%?([\w.\-]+)"), inner, inside)
                yield from self.walk(one.attribute(r"body=%?([\w.\-]+)"), inner, inside)
            elif one.opcode == "conditional":
                for branch in (one.attribute(r"branch_computations=\{([^}]*)\}") or "").replace("%", "").split(", "):
                    yield from self.walk(branch, turns, loops) if branch else ()
            elif one.opcode in ("call", "async-start") and one.called:
                yield from self.walk(one.called, turns, loops)
            else:
                kind, size, flops = self._cost(computation, one)
                yield Kernel(one.name, kind, one.source, turns, size * turns, flops * turns, loops)

    def _cost(self, computation, one):
        """Returns (kind, bytes, operations) of one launch."""
        operands = [computation[name] for name in one.operands if name in computation]
        whole = count_bytes(one.shape) + sum(count_bytes(operand.shape) for operand in operands)
        if one.opcode == "fusion":
            fusion = self._fusion(one.called)
            return _fusion_kind(one, fusion.flops), _touched(fusion, operands), fusion.flops
        if one.opcode == "custom-call":
            return _library_cost(one, operands, whole)
        if one.opcode in _SLICING:
            return one.opcode, 2 * count_bytes(one.shape), 0.0
        if one.opcode == "dynamic-update-slice":
            return one.opcode, 2 * count_bytes(operands[1].shape), 0.0
        return one.opcode, whole, _product_flops(one, operands)

    def _measured_fusion(self, name):
        """Returns what a fused computation reads and writes: backwards, how much of each value is needed."""
        computation = self._computations[name]
        size = {each: count_elements(one.shape) for each, one in computation.items()}
        needed = collections.defaultdict(int)
        for one in reversed(computation.values()):
            if one.is_root:
                needed[one.name] = size[one.name]
            if one.is_root and one.opcode == "tuple":
                needed |= {operand: size[operand] for operand in one.operands}
            elif one.name in needed:
                self._spread(computation, one, needed, size)
        read = {}
        for one in computation.values():
            if one.opcode == "parameter":
                found = needed[one.name] * count_bytes(one.shape) // max(1, size[one.name])
                read[one.number] = None if one.shape.startswith("(") or needed[one.name] >= size[one.name] else found
        root = next(one for one in computation.values() if one.is_root)
        return _Fusion(read, _written(computation, root), self._flops(computation))

    def _spread(self, computation, one, needed, size):
        """Adds what an instruction needs of its operands to what is needed of them."""
        wanted, whole = needed[one.name], max(1, size[one.name])
        for place, operand in enumerate(one.operands):
            all_of_it, adds = size[operand], False
            if one.opcode in _SLICING and place == 0:
                amount, adds = wanted, True
            elif one.opcode in _IN_PLACE and place == 0:
                amount = 0
            elif one.opcode == "fusion":
                inner = self._fusion(one.called).read.get(place)
                each = max(1, count_bytes(computation[operand].shape) // max(1, all_of_it))
                amount, adds = (all_of_it, False) if inner is None else (inner // each, True)
            elif one.opcode == "reduce" and all_of_it >= whole:
                amount = -(-all_of_it * wanted // whole)
            elif one.opcode in _WHOLE | _SLICING | _IN_PLACE or (one.opcode == "concatenate" and wanted >= whole):
                amount = all_of_it
            else:  # element by element
                amount = wanted
            so_far = needed[operand]
            needed[operand] = min(all_of_it, so_far + amount if adds else max(so_far, amount))

    def _flops(self, computation):
        total = 0.0
        for one in computation.values():
            if one.opcode == "fusion":
                total += self._fusion(one.called).flops
            else:
                total += _product_flops(one, [computation[name] for name in one.operands])
        return total


def _gives_an_array(one):
    return one.opcode in _WHOLE or any(sizes for _, sizes in arrays(one.shape))


def _written(computation, one):
    """Returns the bytes that a root writes: what is updated in place counts as the update."""
    if one.opcode == "tuple":
        return sum(_written(computation, computation[name]) for name in one.operands)
    if one.opcode == "bitcast" and computation[one.operands[0]].opcode in ("bitcast", "dynamic-update-slice"):
        return _written(computation, computation[one.operands[0]])
    if one.opcode == "dynamic-update-slice":
        return count_bytes(computation[one.operands[1]].shape)
    return count_bytes(one.shape)


def _touched(fusion, operands):
    """Returns the bytes of a fusion's operands that it reads, one that it takes twice once, and what it writes."""
    whole, total = set(), fusion.written
    for place, operand in enumerate(operands):
        part = fusion.read.get(place)
        if part is not None:
            total += min(part, count_bytes(operand.shape))
        elif operand.name not in whole:
            whole.add(operand.name)
            total += count_bytes(operand.shape)
    return total


def _fusion_kind(one, flops):
    if "__triton" in one.attributes or "triton_nested_gemm" in one.attributes:
        return "triton-product" if flops else "triton-fusion"
    if flops:
        return "product-fusion"
    kind = one.attribute(r"kind=k(\w+)") or "loop"
    return f"{kind.lower()}-fusion"


def _library_cost(one, operands, whole):
    """Returns (kind, bytes, operations) of a call of a library, or of a kernel written by hand."""
    target = one.attribute(r'custom_call_target="([^"]*)"') or ""
    if "__cublas" in target:
        result = "".join(f"{kind}{list(sizes)}" for kind, sizes in arrays(one.shape) if kind != "s8").replace(" ", "")
        size = count_bytes(result) + sum(count_bytes(operand.shape) for operand in operands)
        epilogue = one.attribute(r'"epilogue":"(\w+)"')
        return f"{target}:{epilogue}" if epilogue else target, size, _dot_flops(one, operands)
    if "fmha" in target:  # query and key are (batch, length, heads, width)
        (batch, rows, heads, width), (_, columns, _, _) = (arrays(operand.shape)[0][1] for operand in operands[:2])
        return target, whole, 4.0 * batch * heads * rows * columns * width * (_BACKWARD if "Backward" in target else 1)
    return target, whole - _left_unread(one, operands), _kernel_flops(one, operands)


def _left_unread(one, operands):
    """Returns the bytes of keys, values and mask that tx.kernels.decoding.attend_first does not read at TOKEN."""
    if "/attend_first/" not in one.source:
        return 0
    query, key = (arrays(operand.shape)[0][1] for operand in operands[1:3])
    beam, keys = query[1], key[2]
    unread = max(0, keys - (TOKEN + 1) * beam)
    return sum(count_bytes(operand.shape) * unread // keys for operand in operands[2:5])


def _kernel_flops(one, operands):
    """Returns the operations of tx.kernels.projection.best_columns; of attention's kernels too few to tell."""
    if "/best_columns/" not in one.source:
        return 0.0
    (rows, width), (columns, _) = (arrays(operand.shape)[0][1] for operand in operands)
    return 2.0 * rows * columns * width


def _product_flops(one, operands):
    if one.opcode == "dot":
        return _dot_flops(one, operands)
    if one.opcode == "convolution":
        return _convolution_flops(one, operands)
    return 0.0


def _dot_flops(one, operands):
    left = arrays(operands[0].shape)[0][1]
    return 2.0 * count_elements(one.shape) * math.prod(left[axis] for axis in numbers(one.attribute(_LHS_AXES)))


def _convolution_flops(one, operands):
    """Returns the operations of a product that is written as a convolution: its batch axes are spatial ones."""
    sizes = [arrays(shape)[0][1] for shape in (operands[0].shape, operands[1].shape, one.shape)]
    labels = (one.attribute(r"dim_labels=([\w>\-]+)") or "").replace("->", "_").split("_")
    batch = 1
    for axis in filter(str.isdigit, labels[0]):
        of_each = {size[label.index(axis)] for size, label in zip(sizes, labels, strict=True)}
        batch *= of_each.pop() if len(of_each) == 1 else 1
    # (b, m, k), (b, k, n) and (b, m, n): the root of the product of all sizes is b^1.5 m k n.
    return 2.0 * math.sqrt(math.prod(map(math.prod, sizes)) / batch)
