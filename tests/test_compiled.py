"""`python -m experiments.bench compile`: costs of kernels counted by hand, tables, refusals; and, slow, the bounds.

Compiling needs the compilers of `make compile-venv`: TX_COMPILE_PYTHON names a Python that has them.
"""

import json
import os
import pathlib
import shutil
import subprocess

import jax
import jax.numpy as jnp
import pytest
import tiny
from xla_flags import TWO_DEVICES, WITHOUT_EMITTERS

from experiments import registry
from experiments.bench import __main__ as command
from experiments.bench import compiling
from experiments.bench.harness import compilers, hlo, kernel_costs, targets
from experiments.bench.harness.contestant import Contestant
from experiments.bench.harness.kernel_costs import Kernel
from launch.plan import __main__ as plan
from tx.files import to_json
from tx.runtime import backend

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "bench" / "results" / "compiled"
# 1 GB/s and 1 GFLOP/s: a byte, or an operation, is a nanosecond; a launch is a microsecond.
ROUND = targets.Target("gpu", (), 1e9, 1e9, 1e9, 1e-6)


@pytest.fixture(autouse=True)
def _compiled_as_users_have_it(monkeypatch):
    """In processes of their own: of what tests here are set for the speed of compilers, nothing."""
    monkeypatch.setenv("XLA_FLAGS", TWO_DEVICES)


def written(entry, *others):
    """Returns the text of a program of instructions of its entry, and of other computations."""
    return "HloModule test\n\n" + "\n\n".join([*others, "ENTRY %main (p: f32[]) -> f32[] {\n" + entry + "\n}"])


def cost(entry, *others):
    """Returns {name: kernel} of such a program."""
    return {kernel.name: kernel for kernel in kernel_costs.kernels(hlo.parse(written(entry, *others)))}


def test_shapes():
    assert hlo.count_bytes("(f32[2,3]{1,0}, /*index=1*/bf16[4]{0:T(128)(2,1)}, token[])") == 24 + 8
    assert hlo.count_bytes("pred[]") == 1
    assert hlo.count_bytes("s4[3]{0}") == 2
    assert hlo.count_elements("bf16[8,128]{1,0:T(8,128)(2,1)S(1)}") == 1024
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule empty")


def test_a_product_counts_its_operations_and_all_of_its_arrays():
    found = cost(
        """
  %a = f32[4,5,6]{2,1,0} parameter(0)
  %b = f32[4,6,7]{2,1,0} parameter(1)
  ROOT %dot.1 = f32[4,5,7]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, \
rhs_contracting_dims={1}, metadata={op_name="jit(f)/layer_3/dot_general"}
"""
    )["dot.1"]
    assert (found.kind, found.launches, found.source) == ("dot", 1, "jit(f)/layer_3/dot_general")
    assert found.bytes == 4 * (4 * 5 * 6 + 4 * 6 * 7 + 4 * 5 * 7)
    assert found.flops == 2 * 4 * 5 * 6 * 7


FUSED = """%fused (p0: f32[100,8], p1: s32[]) -> f32[1,8] {
  %p0 = f32[100,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,8]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,8}
  ROOT %doubled = f32[1,8]{1,0} add(%row, %row)
}"""
UPDATED = """%updated (p0: f32[100,8], p1: f32[1,8], p2: s32[]) -> f32[100,8] {
  %p0 = f32[100,8]{1,0} parameter(0)
  %p1 = f32[1,8]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  %square = f32[1,8]{1,0} multiply(%p1, %p1)
  ROOT %set = f32[100,8]{1,0} dynamic-update-slice(%p0, %square, %p2, %zero)
}"""
SUMMED = """%summed (p0: bf16[100,8], p1: bf16[8]) -> (f32[100], bf16[100,8]) {
  %p0 = bf16[100,8]{1,0} parameter(0)
  %p1 = bf16[8]{0} parameter(1)
  %wide = bf16[100,8]{1,0} broadcast(%p1), dimensions={1}
  %both = bf16[100,8]{1,0} add(%p0, %wide)
  %float = f32[100,8]{1,0} convert(%both)
  %nothing = f32[] constant(0)
  %total = f32[100]{0} reduce(%float, %nothing), dimensions={1}, to_apply=%plus
  ROOT %two = (f32[100]{0}, bf16[100,8]{1,0}) tuple(%total, %both)
}"""


def test_what_is_sliced_or_updated_in_place_counts_as_what_is_touched():
    found = cost(
        """
  %table = f32[100,8]{1,0} parameter(0)
  %place = s32[] parameter(1)
  %taken = f32[1,8]{1,0} fusion(%table, %place), kind=kLoop, calls=%fused
  %set.1 = f32[100,8]{1,0} fusion(%table, %taken, %place), kind=kInput, calls=%updated
  %half = bf16[100,8]{1,0} parameter(2)
  %offset = bf16[8]{0} parameter(3)
  ROOT %sums = (f32[100]{0}, bf16[100,8]{1,0}) fusion(%half, %offset), kind=kCustom, calls=%summed, \
backend_config={"kind":"__triton"}
""",
        FUSED,
        UPDATED,
        SUMMED,
    )
    assert (found["taken"].kind, found["taken"].bytes) == ("loop-fusion", 4 * (8 + 1 + 8))
    assert (found["set.1"].kind, found["set.1"].bytes) == ("input-fusion", 4 * (8 + 1 + 8))
    assert (found["sums"].kind, found["sums"].bytes) == ("triton-fusion", 2 * (800 + 8) + 4 * 100 + 2 * 800)


LOOP = """%body (state: (s32[], f32[10])) -> (s32[], f32[10]) {
  %state = (s32[], f32[10]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[10]{0} get-tuple-element(%state), index=1
  %next = s32[] add(%i, %i)
  %y = f32[10]{0} negate(%x)
  ROOT %both = (s32[], f32[10]{0}) tuple(%next, %y)
}

%condition (state: (s32[], f32[10])) -> pred[] {
  %state = (s32[], f32[10]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%i, %i), direction=LT
}"""


@pytest.mark.parametrize("known", [True, False])
def test_loops_count_their_turns(known):
    trips = ', backend_config={"known_trip_count":{"n":"7"}}' if known else ""
    text = written(
        f"""
  %start = (s32[], f32[10]{{0}}) parameter(0)
  ROOT %loop = (s32[], f32[10]{{0}}) while(%start), condition=%condition, body=%body{trips}
""",
        LOOP,
    )
    found = {kernel.name: kernel for kernel in kernel_costs.kernels(hlo.parse(text))}
    assert found["y"].launches == (7 if known else 1)
    assert "next" in found
    without = kernel_costs.kernels(hlo.parse(text), scalars=False)
    assert [kernel.name for kernel in without] == ["y"]
    assert found["y"].bytes == 80 * found["y"].launches
    assert ("less" in found) is not known
    assert found["y"].loops == (() if known else ("loop",))
    token = compiling.summarise(list(found.values()), ROUND)["per_token"]
    assert token is None if known else (token["kernels"], token["conditions"]) == (3, 1)


def test_libraries_kernels():
    cublas = '"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}'
    found = cost(
        f"""
  %a = bf16[5,6]{{1,0}} parameter(0)
  %b = bf16[6,7]{{1,0}} parameter(1)
  %c = bf16[7]{{0}} parameter(2)
  %gemm = (bf16[5,7]{{1,0}}, s8[4194304]{{0}}) custom-call(%a, %b, %c), custom_call_target="__cublas$lt$matmul", \
backend_config={{{cublas},"epilogue":"BIAS"}}
  %q = bf16[2,9,3,8]{{3,2,1,0}} parameter(3)
  %k = bf16[2,11,3,8]{{3,2,1,0}} parameter(4)
  ROOT %fmha = bf16[2,9,3,8]{{3,2,1,0}} custom-call(%q, %k, %k), custom_call_target="__cudnn$fmhaSoftmaxBackward"
"""
    )
    gemm = found["gemm"]
    assert (gemm.kind, gemm.flops) == ("__cublas$lt$matmul:BIAS", 2 * 5 * 6 * 7)
    assert gemm.bytes == 2 * (30 + 42 + 7 + 35)  # the library's own room is none of the program's data
    assert found["fmha"].flops == 2.5 * 2 * (2 * 2 * 3 * 9 * 11 * 8)


@pytest.mark.parametrize("positions", [8, 84])
def test_attention_to_a_cache_counts_what_is_there_of_it(positions):
    keys, there = 4 * positions, 4 * min(positions, kernel_costs.TOKEN + 1)
    found = cost(
        f"""
  %n = s32[1]{{0}} parameter(0)
  %q = bf16[2,4,3,8]{{3,2,1,0}} parameter(1)
  %k = bf16[2,3,{keys},8]{{3,2,1,0}} parameter(2)
  %v = bf16[2,3,{keys},16]{{3,2,1,0}} parameter(3)
  %m = s8[2,4,{keys}]{{2,1,0}} parameter(4)
  %part = bf16[2,4,3,16]{{3,2,1,0}} custom-call(%n, %q, %k, %v, %m), custom_call_target="__gpu$xla.gpu.triton", \
metadata={{op_name="jit(f)/attend_first/pallas_call"}}
  ROOT %all = bf16[2,4,3,16]{{3,2,1,0}} custom-call(%n, %q, %k, %v, %m), custom_call_target="__gpu$xla.gpu.triton", \
metadata={{op_name="jit(f)/attend_all/pallas_call"}}
"""
    )
    others = 4 + 2 * 2 * 3 * 4 * (8 + 16)
    assert found["part"].bytes == others + there * (2 * 2 * 3 * (8 + 16) + 2 * 4)
    assert found["all"].bytes == others + keys * (2 * 2 * 3 * (8 + 16) + 2 * 4)


def test_the_product_of_a_search_counts_its_operations():
    found = cost(
        """
  %x = bf16[6,16]{1,0} parameter(0)
  %y = bf16[40,16]{1,0} parameter(1)
  ROOT %best = (f32[6,2,3]{2,1,0}, s32[6,2,3]{2,1,0}, f32[6,2]{1,0}) custom-call(%x, %y), \
custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(f)/best_columns/pallas_call"}
"""
    )["best"]
    assert found.flops == 2 * 6 * 40 * 16
    assert found.bytes == 2 * 16 * (6 + 40) + 4 * 6 * 2 * (3 + 3 + 1)


def test_products_of_a_tpu_are_convolutions():
    found = cost(
        """
  %a = bf16[4,5,6]{2,1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[4,6,7]{2,1,0:T(8,128)(2,1)} parameter(1)
  %batched = bf16[4,5,7]{2,1,0:T(8,128)(2,1)} convolution(%a, %b), window={size=4 stride=3}, \
dim_labels=0bf_0io->0bf
  %c = bf16[5,6]{1,0} parameter(2)
  %d = bf16[7,6]{1,0} parameter(3)
  ROOT %plain = f32[5,7]{1,0} convolution(%c, %d), dim_labels=bf_oi->bf
"""
    )
    assert found["batched"].flops == pytest.approx(2 * 4 * 5 * 6 * 7)
    assert found["plain"].flops == pytest.approx(2 * 5 * 6 * 7)


def test_a_program_that_is_compiled_here_has_the_operations_that_it_should():
    def chain(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=5)[0]

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((16, 32), (32, 32))]
    text = jax.jit(chain).lower(*shapes).compile(compiler_options=WITHOUT_EMITTERS).as_text()
    assert sum(kernel.flops for kernel in kernel_costs.kernels(hlo.parse(text))) == 5 * 2 * 16 * 32 * 32


def kernel(**changed):
    fields = {"name": "k", "kind": "dot", "source": "", "launches": 1, "bytes": 0, "flops": 0.0, "loops": ()}
    return Kernel(**fields | changed)


def test_rooflines_and_groups():
    found = [
        kernel(source="layer_1/x", bytes=1000, flops=5000.0),
        kernel(source="layer_12/x", launches=2, bytes=4000, flops=1000.0),
        kernel(kind="copy", bytes=500),
    ]
    assert [compiling.roofline(each, ROUND) for each in found] == pytest.approx([6e-6, 6e-6, 1.5e-6])
    result = compiling.summarise(found, ROUND, step_flops=2700.0)
    assert (result["kernels"], result["gb"], result["tflop"]) == (4, 5500 / 1e9, 6000 / 1e12)
    assert result["roofline_ms"] == pytest.approx(13.5e-3)
    assert result["mfu"] == pytest.approx(2700 / 13500)
    first, second = result["costliest"]
    assert (first["kernel"], first["source"], first["kernels"]) == ("dot", "layer_N/x", 3)
    assert (second["kernel"], second["roofline_ms"]) == ("copy", pytest.approx(1.5e-3))
    assert [group["kernel"] for group in result["by_kind"]] == ["dot", "copy"]


def a_result(**changed):
    config = {"data": {"batch_rows": 4, "row_length": 32}, "model": {"dtype": "bfloat16"}}
    return (
        {
            "kind": "compile",
            "format": 1,
            "what": "a/b@c",
            "config": config,
            "target": "h100",
            "stack": 1,
            "compilers": {},
        }
        | {"decode": None, "arguments_mib": 1.0, "temporaries_mib": 2.0, "compile_s": 3.0}
        | compiling.summarise([kernel(bytes=1000)], ROUND)
        | changed
    )


def test_two_results_side_by_side(tmp_path):
    (tmp_path / "one.json").write_text(to_json(a_result()))
    token = compiling.summarise([kernel(loops=("while", "inner")), kernel(kind="copy", bytes=9)], ROUND)
    other = a_result(decode={"rows": 8, "length": 16}, **token)
    table = compiling.to_table(compiling.read(tmp_path / "one.json"), other)
    assert [column.title for column in table.columns] == [
        "figure",
        "a/b@c for h100, bfloat16, 4 x 32",
        "a/b@c for h100, bfloat16, 8 x 16 decoded",
    ]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["kernels"] == ("1", "2")
    assert rows["a token: conditions"] == ("", "2")
    assert rows["copy"][0] == ""
    assert "MFU at the roofline, %" not in rows
    assert len(compiling.costliest_table(other).rows) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is no result of python -m experiments.bench compile"),
        ('{"kind": "compile", "format": 1}', "is damaged; compile again"),
    ],
)
def test_what_is_no_result_is_not_shown_beside_one(tmp_path, capsys, text, message):
    (tmp_path / "one.json").write_text(text)
    run = ("compile", "table3/base@smoke", "--target=h100")
    assert message in refused(capsys, *run, f"--beside={tmp_path / 'one.json'}")


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        command.main(list(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_refusals(capsys, tmp_path, monkeypatch):
    run = ("compile", "table3/base@smoke", "--target=h100")
    monkeypatch.setattr(targets, "_is_there", lambda module: False)
    assert "make compile-venv makes an environment that has it" in refused(capsys, *run)
    assert "--stack is of a training step" in refused(capsys, *run, "--stack=2", "--decode")
    assert "--hlo: there is no folder" in refused(capsys, *run, f"--hlo={tmp_path / 'no' / 'x.txt'}")
    assert "model.d_modl" in refused(capsys, *run, "--set=model.d_modl=3")


def test_choices_are_those_of_what_is_compiled_for(monkeypatch):
    monkeypatch.setattr(backend, "_compiled_for", None)
    assert backend.on_cpu()
    assert backend.training_options() is None
    backend.compile_for("gpu")
    assert backend.name() == "gpu"
    assert not backend.joins_projections()
    assert backend.training_options()


# Slow: what is compiled for a card stays within bounds. They are those of the pinned JAX.

BFLOAT = ("--set=model.dtype=bfloat16",)
PAPER = (*BFLOAT, "--set=model.attention_backend=cudnn", "--set=data.batch_rows=96")
PALLAS = "--set=model.kernels=pallas"
ROWS_OF_128 = ("--set=data.batch_rows=16", "--set=data.row_length=128", "--set=model.attention_backend=cudnn")
HEADS_OF_16 = ("--set=model.d_k=16", "--set=model.d_v=16")  # h x d_k = d_model
BOUNDS = {  # result: (kernels, ms of roofline, the command's arguments)
    "base-h100": (1580, 24.4, ("table3/base@paper", "--target=h100", *PAPER)),
    "base-pallas-h100": (515, 19.2, ("table3/base@paper", "--target=h100", *PAPER, PALLAS)),
    "big-h100": (1600, 56, ("table3/big@paper", "--target=h100", *PAPER)),
    "big-pallas-h100": (520, 49, ("table3/big@paper", "--target=h100", *PAPER, PALLAS)),
    "multi30k-h100": (900, 1.8, ("table3/base@multi30k", "--target=h100", *BFLOAT)),
    "multi30k-8-h100": (705, 4.65, ("table3/base@multi30k", "--target=h100", "--stack=8", *BFLOAT)),
    "multi30k-decode-h100": (216, 0.78, ("table3/base@multi30k", "--target=h100", "--decode", *BFLOAT)),
    "multi30k-decode-pallas-h100": (
        256,
        0.69,
        ("table3/base@multi30k", "--target=h100", "--decode", *BFLOAT, PALLAS),
    ),
    "base-decode-h100": (366, 2.73, ("table3/base@paper", "--target=h100", "--decode", *BFLOAT)),
    "base-decode-pallas-h100": (466, 2.23, ("table3/base@paper", "--target=h100", "--decode", *BFLOAT, PALLAS)),
    "multi30k-pallas-h100": (430, 1.05, ("table3/base@multi30k", "--target=h100", *BFLOAT, PALLAS)),
    "multi30k-8-pallas-h100": (435, 3.95, ("table3/base@multi30k", "--target=h100", "--stack=8", *BFLOAT, PALLAS)),
    "multi30k-128-pallas-h100": (
        272,
        0.645,
        ("table3/base@multi30k", "--target=h100", *BFLOAT, PALLAS, *ROWS_OF_128),
    ),
    "multi30k-128-8-pallas-h100": (
        303,
        2.55,
        ("table3/base@multi30k", "--target=h100", "--stack=8", *BFLOAT, PALLAS, *ROWS_OF_128),
    ),
    "multi30k-128-d16-pallas-h100": (
        272,
        0.6,
        ("table3/base@multi30k", "--target=h100", *BFLOAT, PALLAS, *ROWS_OF_128, *HEADS_OF_16),
    ),
    "multi30k-128-d16-8-pallas-h100": (
        303,
        2.1,
        ("table3/base@multi30k", "--target=h100", "--stack=8", *BFLOAT, PALLAS, *ROWS_OF_128, *HEADS_OF_16),
    ),
    "smoke-v5e": (3800, 0.3, ("table3/base@smoke", "--target=v5e", *BFLOAT)),
}
TOKENS = {  # result of a search: (kernels, GB) a token
    "multi30k-decode-h100": (109, 0.65),
    "multi30k-decode-pallas-h100": (80, 0.16),
    "base-decode-h100": (178, 2.7),
    "base-decode-pallas-h100": (133, 0.75),
}
# One program of each kind, compiled anew by `make test-slow`; the others have nothing that these have not, and are
# within their bounds as committed.
ANEW = {
    *("base-h100", "base-pallas-h100", "multi30k-8-h100", "multi30k-128-d16-8-pallas-h100", "smoke-v5e"),
    *("multi30k-decode-h100", "multi30k-decode-pallas-h100"),
}
BOUNDED = [pytest.param(name, marks=pytest.mark.slow if name in ANEW else pytest.mark.extra) for name in BOUNDS]


@pytest.mark.parametrize("name", BOUNDED)
def test_a_step_stays_within_its_bounds(tmp_path, name):
    python = os.environ.get("TX_COMPILE_PYTHON")
    if not python:
        pytest.skip("TX_COMPILE_PYTHON names no Python with the compilers of make compile-venv")
    if "pallas" in name and not shutil.which("ptxas"):
        pytest.skip("kernels need NVIDIA's assembler, ptxas, on the path")
    most, longest, arguments = BOUNDS[name]
    file = tmp_path / "result.json"
    asked = [python, "-m", "experiments.bench", "compile", *arguments, f"--out={file}"]
    ended = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    result = json.loads(file.read_text())
    assert result["kernels"] <= most
    assert result["roofline_ms"] <= longest
    if name in TOKENS:
        kernels, size = TOKENS[name]
        assert result["per_token"]["kernels"] <= kernels
        assert result["per_token"]["gb"] <= size
        assert result["per_token"]["conditions"] == 1


@pytest.fixture
def for_v5e(monkeypatch):
    """What is compiled for four chips of a TPU of a small model with these fields: {"text", "arguments_mib", ...}."""
    python = os.environ.get("TX_COMPILE_PYTHON")
    if not python or "libtpu" not in compilers.versions(python):
        pytest.skip("TX_COMPILE_PYTHON names no Python with the compilers of make compile-venv")

    def compiled(method, *, asked, **diff):
        sizes = {"model__num_layers": 1, "model__d_model": 64, "model__d_ff": 128, "model__vocab_size": 1000}
        config = tiny.config(**sizes, data__batch_rows=8, **diff).to_dict()
        arguments = {"target": "v5e", "config": config, "devices": 4}
        with Contestant("libtpu", "contestants.tx_compiled:Compiled", arguments, 1, python=python) as one:
            return one(method, **asked)

    return compiled


@pytest.mark.slow
def test_a_step_over_four_chips_of_a_tpu_is_compiled_here(for_v5e):
    over = {"parallel__devices": 4, "asked": {"members": 1}}
    shards = for_v5e("train_step", **over, parallel__fsdp_shards=2)
    mapped = for_v5e("train_step", **over, parallel__mode="pmap")
    assert "all-gather" in shards["text"]  # of the parameters that are cut
    assert "all-gather" not in mapped["text"]
    assert "all-reduce" in mapped["text"]
    assert mapped["arguments_mib"] / 2 < shards["arguments_mib"] < 0.8 * mapped["arguments_mib"]


@pytest.mark.slow
def test_a_search_is_compiled_for_a_tpu_here(for_v5e):
    found = for_v5e("search", asked={"rows": 4, "length": 16})
    assert " while(" in found["text"]
    assert found["temporaries_mib"] > 0


@pytest.mark.slow
def test_a_plan_has_the_memory_from_the_compiler_once(for_v5e, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    arguments = ["table3/base@smoke", "--device=v5e-4", "--mfu=0.3", f"--workdir={tmp_path}"]
    assert plan.main(arguments) == 0
    first = capsys.readouterr().out
    assert first.startswith("tracing table3/base@smoke for 4 v5e\ncompiling table3/base@smoke for 4 v5e\n")
    assert "by the compiler's analysis of the training step: libtpu" in first
    assert "~" not in first
    assert plan.main(arguments) == 0
    assert first.endswith(capsys.readouterr().out)


@pytest.mark.parametrize("name", BOUNDS)
def test_committed_results_stay_within_the_bounds(name):
    result = compiling.read(RESULTS / f"{name}.json")
    most, longest, _ = BOUNDS[name]
    assert result["kernels"] <= most < 1.1 * result["kernels"]
    assert result["roofline_ms"] <= longest < 1.1 * result["roofline_ms"]


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_of_a_committed_search_stays_within_its_bounds(name):
    (kernels, size), token = TOKENS[name], compiling.read(RESULTS / f"{name}.json")["per_token"]
    assert token["kernels"] <= kernels < 1.1 * token["kernels"]
    assert token["gb"] <= size < 1.1 * token["gb"]
    assert token["conditions"] == 1


@pytest.mark.parametrize("rows", ["", "128-", "128-d16-"])
def test_stacked_runs_are_launched_together(rows):
    alone, stacked = (compiling.read(RESULTS / f"multi30k-{rows}{name}pallas-h100.json") for name in ("", "8-"))
    assert stacked["kernels"] <= 1.15 * alone["kernels"]


def test_the_page_says_what_the_results_do():
    page = (RESULTS.parent.parent / "README.md").read_text()
    steps = {path.stem: compiling.read(path) for path in sorted(RESULTS.glob("*-h100.json"))}
    for result in [steps.pop(name) for name in TOKENS]:
        token, run = result["per_token"], result["what"].removeprefix("table3/")
        kernels = result["config"]["model"].get("kernels", "xla")
        assert f"| {run} | {kernels} | {token['kernels']} | {token['gb']:.2f} | {token['roofline_ms']:.2f} |" in page
    for result in steps.values():
        model, data = result["config"]["model"], result["config"]["data"]
        run = result["what"].removeprefix("table3/")
        if model["d_k"] != registry.get_config(result["what"]).model.d_k:
            run += f" with d_k {model['d_k']}"
        run += f", {data['batch_rows']} x {data['row_length']}"
        run += f" x {result['stack']} stacked" if result["stack"] > 1 else ""
        figures = f"{result['kernels']:,} | {result['gb']:.1f} | {result['roofline_ms']:.2f} | {result['mfu']:.0%}"
        assert f"| {run} | {model['attention_backend']} | {model.get('kernels', 'xla')} | {figures} |" in page
