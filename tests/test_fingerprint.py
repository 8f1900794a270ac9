"""The fingerprint of the code: what changes it and what does not, on copies of the package and on made-up ones."""

import pathlib
import shutil
import subprocess
import sys
import textwrap

import pytest

import tx
from experiments import registry
from tx import fingerprint
from tx.fingerprint import APART, ENTRIES, Code

ROOT = pathlib.Path(tx.__file__).parent
BASE = registry.get_config("table3/base@smoke")
# (file, what is there, what is written instead).
SAME = [
    ("loss.py", "CHUNK = 512  # tokens whose logits exist at a time", "\n\nCHUNK = (\n  512\n)  # another word"),
    ("loss.py", '"""The smoothed cross-entropy', '"""What is the smoothed cross-entropy'),
    ("loss.py", "    label_smoothing: Any,\n", "    label_smoothing: float,\n"),
    ("step.py", "from tx.loss import cross_entropy\n", "from tx.loss import cross_entropy\nfrom tx import beam\n"),
    ("data/packing.py", 'f"no training sentence fits', 'f"none of the sentences fits'),
    ("train.py", "print(layout)", "print(layout, layout)"),
    ("positions.py", "10000.0 ** (-np.arange(half) / half)", "10000.0 ** (-np.arange(half) / half + 1)"),
    ("positions.py", "BUCKETS, FARTHEST = 32, 128", "BUCKETS, FARTHEST = 64, 256"),
    ("norms.py", "return (y * scale.reshape(*(1,) * (x.ndim - 1), width))", "return (y * scale.reshape(-1))"),
    ("data/recall.py", "SEED = 2017", "SEED = 2018"),
    ("scores.py", "def bleu_from_stats(", "def unreached():\n    return 1\n\n\ndef bleu_from_stats("),
    ("decode.py", 'OPTIONS = ("beam",', 'OPTIONS = ("another", "beam",'),
    ("flops.py", "return sum(parameter_groups", "return 1 + sum(parameter_groups"),
    ("config.py", "c.optim.beta2 = 0.98", "c.optim.beta2 = 0.99"),
]
OTHER = [
    ("loss.py", "CHUNK = 512", "CHUNK = 256"),
    ("loss.py", "parts: int = 1,", "parts: int = 2,"),
    ("loss.py", "nondiff_argnums=(5,)", "nondiff_argnums=(4,)"),
    ("loss.py", "_sums.defvjp(_sums_forward, _sums_backward)", "_sums.defvjp(_sums_backward, _sums_forward)"),
    ("layers.py", "_product.defvjp(lambda x, w: (x @ w, (x, w))", "_product.defvjp(lambda x, w: (x @ w, (w, x))"),
    ("layers.py", "    bias: bool = True\n", "    bias: bool = False\n"),
    ("layers.py", "    rate: Any\n", "    rate: Any\n    seed: Any\n"),
    ("data/packing.py", "POOL = 4096", "POOL = 4097"),
    ("data/ahead.py", "epoch, pool = plan.after(epoch, pool)", "epoch, pool = epoch, pool + 1"),
    (
        "data/tokens.py",
        "block := list(itertools.islice(pairs, 10_000))",
        "block := list(itertools.islice(pairs, 9))",
    ),
    ("data/vocabulary.py", 'model_type="bpe"', 'model_type="unigram"'),
    ("data/number_sentences.py", "ADJECTIVE_SHARE = ", "ADJECTIVE_SHARE = 1 + "),
    ("beam.py", "candidates = 2 * beam if beam > 1 else 1", "candidates = 3 * beam if beam > 1 else 1"),
    ("scores.py", 'sacrebleu.BLEU(tokenize="none"', 'sacrebleu.BLEU(tokenize="13a"'),
    ("scores.py", "json.dump(score(*json.load(sys.stdin)), sys.stdout)", "json.dump({}, sys.stdout)"),
    ("kernels.py", "MASKED = -1e9", "MASKED = -1e8"),
    ("attention.py", "weights.astype(value.dtype), value, preferred_element_type=jnp.float32", "weights, value"),
    ("positions.py", "jnp.stack([jnp.sin(angle), jnp.cos(angle)]", "jnp.stack([jnp.cos(angle), jnp.sin(angle)]"),
    ("norms.py", "EPSILON = 1e-6", "EPSILON = 1e-5"),
    ("norms.py", "y = y - y.mean(-1, keepdims=True)", "y = y - y.min(-1, keepdims=True)"),
    ("optim.py", "return step**-0.5", "return step**-0.6"),
    ("randomness.py", "np.uint32(0x9E3779B9)", "np.uint32(0x9E3779B1)"),
    ("probe.py", "entropy = -(weights", "entropy = (weights"),
    ("completion.py", "argmax(-1)", "argmin(-1)"),
]


def copy(folder):
    """A copy of the package, below a folder; returns its own."""
    return shutil.copytree(ROOT, folder / "tx", ignore=shutil.ignore_patterns("__pycache__"))


def edit(folder, file, old, new):
    path = folder / file
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """The fingerprints of BASE after each edit, and without any, at None.

    They come from one process, whose functions are not checked at every call as they are here.
    """
    folders = {}
    for case in [None, *SAME, *OTHER]:
        folders[case] = copy(tmp_path_factory.mktemp("edited"))
        if case:
            edit(folders[case], *case)
    code = """
        import pathlib, sys
        from experiments import registry
        from tx.fingerprint import Code
        config = registry.get_config("table3/base@smoke")
        print(*(Code(pathlib.Path(folder)).numerics(config) for folder in sys.argv[1:]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *folders.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(folders, done.stdout.split(), strict=True))


@pytest.mark.parametrize("case", SAME, ids=str)
def test_no_difference(edited, case):
    assert edited[case] == edited[None]


@pytest.mark.parametrize("case", OTHER, ids=str)
def test_a_difference(edited, case):
    assert edited[case] != edited[None]


def test_another_component_or_module_makes_no_difference(tmp_path, edited):
    copied = copy(tmp_path)
    mine = '\n\n@positions.register("mine")\nclass Mine(Sinusoidal):\n    """Mine."""\n'
    with (copied / "positions.py").open("a") as file:
        file.write(mine)
    (copied / "mine.py").write_text(
        "from tx.norms import norms\n\nprint(norms)\n@norms.register('mine')\ndef f(): pass\n"
    )
    assert Code(copied).numerics(BASE) == edited[None]
    mine = BASE.to_dict()
    mine["model"]["positions"] = "mine"
    assert {"tx.positions.Mine", "tx.positions.Sinusoidal"} <= set(Code(copied).covered(mine))


def test_where_a_definition_lies_makes_no_difference(tmp_path, edited):
    copied = copy(tmp_path)
    text = (copied / "loss.py").read_text()
    start, end = text.index("def smoothing("), text.index("def cross_entropy(")
    (copied / "loss.py").write_text(f"from tx import labels\n{text[:start]}{text[end:]}")
    edit(copied, "loss.py", "= smoothing(", "= labels.smoothing(")
    words = "from typing import Any\n\nimport jax\nfrom jax import numpy\nfrom jax.scipy.special import xlogy\n\n\n"
    (copied / "labels.py").write_text(words + text[start:end].replace("jnp.", "numpy."))
    text = (copied / "positions.py").read_text()
    start, end = text.index('@positions.register("sinusoidal")'), text.index('@positions.register("learned")')
    (copied / "positions.py").write_text(text[:start] + text[end:])
    words = "import jax.numpy as jnp\nimport numpy as np\n\nfrom tx import positions as p\n\n\n@p."
    (copied / "sines.py").write_text(
        words + text[start + 1 : end].replace("(PositionEncoding)", "(p.PositionEncoding)")
    )
    code = Code(copied)
    assert {"tx.labels.smoothing", "tx.sines.Sinusoidal"} <= set(code.covered(BASE))
    assert code.numerics(BASE) == edited[None]


def test_everything_that_makes_a_number_is_reached():
    reached = set(Code(ROOT).covered(BASE))
    expected = """
        train.run_experiments train.train again.translate_again group.take_up group.finish_all members.Member
        step.update step.batch_loss step.init_state step.make_train_step step.make_eval step.Values step.TrainState
        loss.cross_entropy loss.smoothing loss.CHUNK loss.LOGITS loss._sums_backward optim.optimizer optim.schedule
        optim.inverse_sqrt parallel.Layout parallel.make_train_step parallel.gather randomness.random_bits
        randomness._GENERATOR randomness._fold_in model.Transformer model.EncoderLayer model.DecoderLayer
        model.projection attention.MultiHeadAttention attention.Rows attention.Place attention.BLOCK
        kernels.attend_heads kernels._attend_backward kernels.dot_product_attention kernels.accumulate kernels.MASKED
        layers.Dense layers.Dropout layers.Residual layers._product_backward layers.unit_scaling
        mixers.self_attention similarity.Scaled similarity.Similarity positions.Sinusoidal positions.PositionEncoding
        norms.LayerNorm norms._normalise_half_backward norms.EPSILON feed_forward.Rectified feed_forward.FeedForward
        data.corpora.load data.generated.read data.numbers.generate data.numbers.SEED data.number_sentences.sentence
        data.tokens.prepare data.tokens.tokenize data.vocabulary.Vocabulary data.vocabulary.training_sentences
        data.packing.TrainBatches data.packing.best_fit data.packing.fill data.packing.eval_batches data.packing.POOL
        data.ahead.Ahead data.ahead.main checkpoint.Checkpoints outcome.finish evaluate.evaluate_translations
        decode.Translator decode._search decode.batches beam.search beam._top_k completion.complete
        scores.score scores.score_apart scores.__main__ scores.multi_bleu scores.moses scores.split_compounds
        probe.measure_attention probe._sums
    """
    assert {f"tx.{name}" for name in expected.split()} - reached == set()
    other = """positions.Rotary positions.Learned mixers.Recurrent mixers.Mixer similarity.Additive norms.RMSNorm
        feed_forward.SwiGLU optim.cosine data.recall.generate flops.training_flops decode.main train.main train.*"""
    assert {f"tx.{name}" for name in other.split()} & reached == set()
    assert set(ENTRIES) <= reached


def test_what_is_set_apart_is_there():
    assert all((ROOT / f"{name}.py").is_file() for name in APART)


@pytest.mark.parametrize(
    ("field", "name", "there", "gone"),
    [
        ("model.positions", "rotary", "positions.Rotary", "positions.Sinusoidal"),
        ("model.mixer", "dilated", "mixers.Convolution", "mixers.self_attention"),
        ("model.feed_forward", "none", "feed_forward.feed_forwards.none", "feed_forward.FeedForward"),
        ("optim.schedule", "cosine", "optim.cosine", "optim.inverse_sqrt"),
        ("data.corpus", "recall", "data.recall.generate", "data.numbers.generate"),
        ("data.corpus", "multi30k", "data.textfiles.read", "data.number_sentences.sentence"),
    ],
)
def test_a_component_counts_where_it_is_named(field, name, there, gone):
    config = registry.get_config("table3/base@smoke", {field: name})
    reached = set(fingerprint.covered(config))
    assert f"tx.{there}" in reached
    assert f"tx.{gone}" not in reached
    assert fingerprint.numerics(config) != fingerprint.numerics(BASE)


def test_a_configuration_as_it_is_read_from_a_file(edited):
    written = BASE.to_dict()
    assert fingerprint.numerics(BASE) == fingerprint.numerics(written) == edited[None]
    del written["model"]["positions"], written["optim"]  # of a file that is older than these fields
    assert fingerprint.numerics(written) == edited[None]
    written["model"]["positions"] = "learned"
    assert fingerprint.numerics(written) != edited[None]
    for odd in ("of no such name", 3, ["sinusoidal"], None):
        written["model"]["positions"] = odd
        assert "tx.positions.Sinusoidal" not in fingerprint.covered(written)
    for odd in ({"model": 3}, {"model": []}, {"data": "corpus"}):
        assert fingerprint.numerics(odd) == fingerprint.numerics({})


def test_it_is_quick_and_needs_no_jax():
    code = """
        import sys, time
        from experiments import registry
        from tx import fingerprint
        config = registry.get_config("table3/base@smoke")
        began = time.perf_counter()
        fingerprint.numerics(config)
        first = time.perf_counter() - began
        for _ in range(1000):
            fingerprint.numerics(config)
        print(first, time.perf_counter() - began - first, "jax" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    first, later, jax = done.stdout.split()
    assert (float(first) < 3, float(later) < 1, jax) == (True, True, "False")  # measured: 0.12 s, 0.04 s


# Small packages, made up: a registry in `parts`, an entry in `train`.

PACKAGE = {
    "__init__": "",
    "again": "def translate_again(): pass",
    "components": "class Registry: pass",
    "errors": "class UserError(Exception): pass",
    "train": """
        from tx.parts import parts
        def run_experiments(config):
            return parts[config.part](1)
        """,
    "parts": """
        from tx.components import Registry
        parts = Registry("model.part")
        RATE = 2
        @parts.register("one")
        def one(x):
            return x * RATE
        """,
}


@pytest.fixture
def package(tmp_path):
    """Returns a function (part, added files' texts, **modules that are other than in PACKAGE) -> `Code.numerics`."""
    made = iter(range(100))

    def numerics(part="one", added=(), **modules):
        folder = tmp_path / str(next(made)) / "tx"
        folder.mkdir(parents=True)
        for name, text in (PACKAGE | modules).items():
            (folder / f"{name}.py").write_text(textwrap.dedent(text))
        for i, text in enumerate(added):
            (folder.parent / f"added{i}.py").write_text(textwrap.dedent(text))
        files = [folder.parent / f"added{i}.py" for i in range(len(added))]
        return Code(folder, files).numerics({"model": {"part": part}})

    return numerics


def train(body, head=""):
    return f"{head}\ndef run_experiments(x):\n" + textwrap.indent(textwrap.dedent(body), "    ")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (train("return a.f(x)", "from tx import a"), train("return f(x)", "from tx.a import f")),
        (train("return a.f(x)", "from tx import a"), train("import tx.a\nreturn tx.a.f(x)")),
        (train("return a.f(x)", "from tx import a"), train("from .a import f as g\nreturn g(x)")),
        (train("return a.f(x)", "from tx import a"), train("return f(x)", "from tx.again import f")),  # handed on
        (train("return np.exp(x)", "import jax.numpy as np"), train("return exp(x)", "from jax.numpy import exp")),
        (train("y: int = 1\nz: str\nreturn y"), train("'Words'\ny = 1\nreturn y")),
        (train("pass"), train("print(x)", "print(1)")),
        (train("pass"), train("pass", "if TYPE_CHECKING:\n    from tx.a import f")),
        (
            train("raise UserError('a')", "from tx.errors import UserError"),
            train("raise UserError(f'{x}')", "from tx.errors import UserError"),
        ),
        (train("return K", "J, K = 1, 2"), train("return K", "K = 2\nJ = 3")),
    ],
)
def test_the_same_in_other_words(package, one, other):
    more = {"a": "def f(x): return x", "again": "from tx.a import f\ndef translate_again(): return f(1)"}
    assert package(train=one, **more) == package(train=other, **more)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            train("return a.f(x) + b.f(x)", "from tx import a, b"),
            train("return b.f(x) + a.f(x)", "from tx import a, b"),
        ),
        (
            train("return a.f(x) + b.g(x)", "from tx import a, b"),
            train("return b.f(x) + b.g(x)", "from tx import a, b"),
        ),
        (train("return np.exp(x)", "import numpy as np"), train("return np.exp(x)", "import jax.numpy as np")),
        (train("return x[1:]"), train("return x[:1]")),
        (train("return x"), train("yield x")),
        (train("return f'{x}a'"), train("return f'{x}b'")),
        (train("return A(1)", "class A:\n    x: int"), train("return A(1)", "class A:\n    y: int")),
        (train("return A(1)", "class A:\n    x: int"), train("return A(1)", "class A:\n    x: int = 1")),
        (train("return A(1)", "class A:\n    x: int = 1"), train("return A(1)", "class A:\n    x = 1")),
        (train("return K", "K = 1\nK += 1"), train("return K", "K = 1\nK += 2")),
        (train("return K", "K = {}\nK['a'] = 1"), train("return K", "K = {}\nK['a'] = 2")),
        (train("if UserError(x): pass"), train("if UserError(2): pass")),  # another of this name
    ],
)
def test_not_the_same(package, one, other):
    more = {"a": "def f(x): return x", "b": "def f(x): return -x\ndef g(x): return f(x)"}
    more["again"] = "from tx import a, b\ndef translate_again(): return a.f, b.f, b.g"
    assert package(train=one, **more) != package(train=other, **more)


@pytest.mark.parametrize(
    "reaches",
    [
        "f = 1\nreturn f",
        "return [f for f in x]",
        "return (lambda f: f)(x)",
        "def g(f): return f\nreturn g",
        "from numpy import f\nreturn f",
        "try:\n    pass\nexcept ValueError as f:\n    return f",
        "match x:\n    case [f, *_]:\n        return f",
        "return x.f",
    ],
)
def test_a_name_of_its_own_is_not_that_of_the_module(package, reaches):
    one, other = (package(train=train(reaches, f"def f(x): return {value}")) for value in (1, 2))
    assert one == other


@pytest.mark.parametrize(
    "reaches",
    [
        "global f\nf = f\nreturn f",
        "return [f(y) for y in x]",
        "return [f for f in f(x)]",
        "return (lambda y=f: y)(x)",
        "def g(y=f): return y\nreturn g",
        "class A:\n    f = 1\n    def g(self): return f\nreturn A",
    ],
)
def test_a_name_of_the_module(package, reaches):
    one, other = (package(train=train(reaches, f"def f(x): return {value}")) for value in (1, 2))
    assert one != other


@pytest.mark.parametrize(
    "reaches",
    [
        train("return f(x)", "from tx.a import *"),
        train("return getattr(a, x)()", "from tx import a"),
        train("return importlib.import_module('tx.a')", "import importlib"),
        train("return import_module(x)", "from importlib import import_module"),
        train("return import_module(name='tx.a')", "from importlib import import_module"),
        train("return a.h(x)", "from tx import a"),
        train("return subprocess.run(['python', '-m', 'tx.a'])", "import subprocess"),
        train("return f", "try:\n    from tx.a import f\nexcept ImportError:\n    f = None"),
    ],
)
def test_what_cannot_be_followed_takes_in_all_that_it_may_be(package, reaches):
    text = """
        def f(x): return {}
        if f(1):
            h = 1
        """
    one, other = (package(train=reaches, a=textwrap.dedent(text).format(value)) for value in (1, 2))
    assert one != other


def test_a_module_that_is_started(package):
    starts, text = train("return ['-m', 'tx.a']"), "def f(): return {}\ndef g(): return {}\n{}:\n    f()\n"
    guard = "if __name__ == '__main__'"
    found = {values: package(train=starts, a=text.format(*values, guard)) for values in ((1, 1), (2, 1), (1, 2))}
    assert found[1, 1] == found[1, 2] != found[2, 1]


def test_a_component_in_a_condition_or_under_a_name_that_is_computed(package):
    parts = (
        PACKAGE["parts"]
        + """
        if RATE:
            @parts.register("two")
            def two(x): return {}
        """
    )
    assert package("one", parts=parts.format(1)) != package("one", parts=parts.format(2))  # beside what is reached
    text = "from tx.parts import parts\n\n\n@parts.register(str(2))\ndef two(x): return {}\n"
    assert package("one", more=text.format(1)) == package("one", more=text.format(2)) == package("one")
    assert package("2", more=text.format(1)) != package("2", more=text.format(2))


def test_a_component_that_the_code_takes_by_name(package):
    both = PACKAGE["train"].replace("(1)", "(1), parts['two']")
    parts = (
        PACKAGE["parts"]
        + """
        @parts.register("two")
        def two(x): return {}
        """
    )
    assert package(train=both, parts=parts.format(1)) != package(train=both, parts=parts.format(2))
    assert package(parts=parts.format(1)) == package(parts=parts.format(2)) == package()


# Added files.

MINE = """
    import functools
    from experiments.registry import Sweep, register
    from tx.parts import one, parts

    SCALE = {scale}
    OTHER = {other}

    def helper(x):
        return one(x) * SCALE

    @parts.register("mine")
    class Mine:
        def f(self): return helper(1)

    @functools.partial
    def custom(x): return x
    custom.defvjp(OTHER)

    @parts.register("other")
    def other(x): return custom(x)

    register(Sweep(name="a", variants=[OTHER]))
    {more}
    """


def mine(scale=1, other=1, more=""):
    return [MINE.format(scale=scale, other=other, more=more)]


def test_of_an_added_file_counts_what_is_used(package):
    assert package("one", mine()) == package("one")
    assert package("mine", mine()) == package("mine", mine(other=2)) != package("mine", mine(scale=2))
    assert package("other", mine()) == package("other", mine(scale=2)) != package("other", mine(other=2))
    assert package("mine") == package("of no such name")


@pytest.mark.parametrize(
    "more",
    [
        "tx.parts.RATE = OTHER",
        "setattr(tx.parts, 'RATE', OTHER)",
        "alias = tx.parts; alias.RATE = OTHER",
        "helper(OTHER)",
        "for RATE in [OTHER]: tx.parts.RATE = RATE",
        "if OTHER: pass",
    ],
)
def test_what_an_added_file_changes_elsewhere_always_counts(package, more):
    found = [package("one", mine(other=value, more=more)) for value in (1, 2)]
    assert len({*found, package("one")}) == 3


def test_the_same_in_every_version_of_python(package):
    """The digits are those of any version; they change with the words that tx/references.py makes."""
    text = """
        async def run_experiments(x, /, y=1, *z, w, v=2, **u) -> int:
            global G
            y = f"{x!r:>{y}}" "a" f"b{x}" + "\\u2028 \\u0378"
            a, *b = [z async for z in x if (w := z)] or {**x, 1: 2j}
            match x:
                case {"a": 1, **rest} if rest:
                    return 1e300, b"a", None, ...
                case A(1, y=2) | [_, *c]:
                    return x[1:, ::2]
            with x as v, y:
                del v.a
            try:
                assert x, "no"
            except* ValueError as error:
                raise
            return lambda p, q=1, *r, s, **t: r[0] if not p < q <= 3 else await_
        """
    assert package(train=text) == "3fda056250d2"
