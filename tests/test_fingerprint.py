"""The fingerprint of the code: what changes it and what does not, on copies of the package and on made-up ones."""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import pytest

import tx
from experiments import registry
from tx.runs import fingerprint
from tx.runs.fingerprint import APART, ENTRIES, Code

ROOT = pathlib.Path(tx.__file__).parent
BASE = registry.get_config("table3/base@smoke")
# (file, what is there, what is written instead).
SAME = [
    ("runtime/backend.py", "CHUNK = 512  # tokens whose logits exist", "CHUNK = (\n  512\n)  # another word"),
    ("model/loss.py", '"""Smoothed cross-entropy', '"""What is the smoothed cross-entropy'),
    ("model/loss.py", "    label_smoothing: Any,\n", "    label_smoothing: float,\n"),
    (
        "training/step.py",
        "from tx.model.loss import batch_loss, count_targets\n",
        "from tx.model.loss import batch_loss, count_targets\nfrom tx.decoding import beam_search\n",
    ),
    ("data/loader.py", 'f"no training sentence fits', 'f"none of the sentences fits'),
    ("training/loop.py", "print(layout)", "print(layout, layout)"),
    ("model/positions.py", "10000.0 ** (-np.arange(half) / half)", "10000.0 ** (-np.arange(half) / half + 1)"),
    ("model/positions.py", "BUCKETS, FARTHEST = 32, 128", "BUCKETS, FARTHEST = 64, 256"),
    ("model/norms.py", "return (y * scale.reshape(*(1,) * (x.ndim - 1), width))", "return (y * scale.reshape(-1))"),
    ("data/synthetic/recall.py", "SEED = 2017", "SEED = 2018"),
    ("evaluation/scores.py", "def bleu_from_stats(", "def unreached():\n    return 1\n\n\ndef bleu_from_stats("),
    ("runs/state.py", 'NAMES = ("pending",', 'NAMES = ("another", "pending",'),
    ("model/flops.py", "return sum(parameter_groups", "return 1 + sum(parameter_groups"),
    ("fields.py", '"beta2": Field(0.98', '"beta2": Field(0.99'),
    ("training/optimizer.py", "optax.lion(rate, b1=b1", "optax.lion(rate, b1=b2"),
]
OTHER = [
    ("runtime/backend.py", "CHUNK = 512", "CHUNK = 256"),
    ("model/loss.py", "parts: int = 1,\n    kernels", "parts: int = 2,\n    kernels"),
    ("model/loss.py", "nondiff_argnums=(5, 6)", "nondiff_argnums=(4, 6)"),
    ("model/loss.py", "_sums.defvjp(_sums_forward, _sums_backward)", "_sums.defvjp(_sums_backward, _sums_forward)"),
    ("model/layers.py", "_product.defvjp(lambda x, w: (x @ w, (x, w))", "_product.defvjp(lambda x, w: (x @ w, (w, x))"),
    ("model/layers.py", "    bias: bool = True\n", "    bias: bool = False\n"),
    ("model/layers.py", "    rate: Any\n", "    rate: Any\n    seed: Any\n"),
    ("data/loader.py", "POOL = 4096", "POOL = 4097"),
    ("data/prefetch.py", "epoch, pool = plan.after(epoch, pool)", "epoch, pool = epoch, pool + 1"),
    (
        "data/tokenized.py",
        "block := list(itertools.islice(pairs, 10_000))",
        "block := list(itertools.islice(pairs, 9))",
    ),
    ("data/vocabulary.py", "model_type=tokenizer", 'model_type="unigram"'),
    ("data/synthetic/number_sentences.py", "ADJECTIVE_SHARE = ", "ADJECTIVE_SHARE = 1 + "),
    ("decoding/beam_search.py", "return 2 * beam if beam > 1 else 1", "return 3 * beam if beam > 1 else 1"),
    ("evaluation/scores.py", 'sacrebleu.BLEU(tokenize="none"', 'sacrebleu.BLEU(tokenize="13a"'),
    ("evaluation/scores.py", "json.dump(score(*json.load(sys.stdin)), sys.stdout)", "json.dump({}, sys.stdout)"),
    ("model/attention_kernels.py", "MASKED = -1e9", "MASKED = -1e8"),
    ("model/attention.py", "return heads if added is None else heads + added", "return heads"),
    ("model/positions.py", "jnp.stack([jnp.sin(angle), jnp.cos(angle)]", "jnp.stack([jnp.cos(angle), jnp.sin(angle)]"),
    ("model/norms.py", "EPSILON = 1e-6", "EPSILON = 1e-5"),
    ("model/norms.py", "y = y - y.mean(-1, keepdims=True)", "y = y - y.min(-1, keepdims=True)"),
    ("training/optimizer.py", "return step**-0.5", "return step**-0.6"),
    ("model/prng.py", "np.uint32(0x9E3779B9)", "np.uint32(0x9E3779B1)"),
    ("evaluation/attention_probe.py", "entropy = -(weights", "entropy = (weights"),
    ("decoding/last_token.py", "argmax(-1)", "argmin(-1)"),
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
        from tx.runs.fingerprint.code import Code
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
    with (copied / "model/positions.py").open("a") as file:
        file.write(mine)
    (copied / "mine.py").write_text(
        "from tx.model.norms import norms\n\nprint(norms)\n@norms.register('mine')\ndef f(): pass\n"
    )
    assert Code(copied).numerics(BASE) == edited[None]
    mine = BASE.to_dict()
    mine["model"]["positions"] = "mine"
    assert {"tx.model.positions.Mine", "tx.model.positions.Sinusoidal"} <= set(Code(copied).covered(mine))


def test_where_a_definition_lies_makes_no_difference(tmp_path, edited):
    copied = copy(tmp_path)
    text = (copied / "model/loss.py").read_text()
    start, end = text.index("def smoothing("), text.index("def cross_entropy(")
    (copied / "model/loss.py").write_text(f"from tx import labels\n{text[:start]}{text[end:]}")
    edit(copied, "model/loss.py", "= smoothing(", "= labels.smoothing(")
    words = "from typing import Any\n\nimport jax\nfrom jax import numpy\nfrom jax.scipy.special import xlogy\n\n\n"
    (copied / "labels.py").write_text(words + text[start:end].replace("jnp.", "numpy."))
    text = (copied / "model/positions.py").read_text()
    start, end = text.index('@positions.register("sinusoidal")'), text.index('@positions.register("learned")')
    (copied / "model/positions.py").write_text(text[:start] + text[end:])
    words = "import jax.numpy as jnp\nimport numpy as np\n\nfrom tx.model import positions as p\n\n\n@p."
    moved = text[start + 1 : end].replace("(PositionEncoding)", "(p.PositionEncoding)")
    (copied / "sines.py").write_text(words + moved.replace("_refuse_odd(", "p._refuse_odd("))
    code = Code(copied)
    assert {"tx.labels.smoothing", "tx.sines.Sinusoidal"} <= set(code.covered(BASE))
    assert code.numerics(BASE) == edited[None]


def test_everything_that_makes_a_number_is_reached():
    reached = set(Code(ROOT).covered(BASE))
    expected = """
        training.experiment.run_experiments training.loop.train training.reevaluation.evaluate_with_trained_params
        training.experiment.claim_runs training.experiment.finish_all training.training_run.TrainingRun
        training.step.train_step model.loss.batch_loss training.step.init_state training.step.make_train_step
        evaluation.perplexity.make_eval
        training.stacking.TracedHyperparameters training.step.TrainState model.loss.cross_entropy model.loss.smoothing
        runtime.backend.LOSS_CHUNK runtime.backend.LOSS_LOGITS model.loss._sums_backward training.optimizer.optimizer
        training.optimizer.schedule training.optimizer.inverse_sqrt training.sharding.Layout
        training.sharding.make_step_over_devices training.sharding.gather model.prng.random_bits model.prng._GENERATOR
        model.prng._fold_in model.transformer.Transformer model.transformer.EncoderLayer
        model.transformer.DecoderLayer model.transformer.projection model.attention.MultiHeadAttention
        model.packed_mask.PackedMask model.position_context.PositionContext model.attention.BLOCK
        model.attention_kernels.attend_heads model.attention_kernels._attend_backward
        model.attention_kernels.dot_product_attention model.attention_kernels.online_softmax_update
        model.attention_kernels.MASKED model.layers.Dense model.layers.Dropout
        model.layers._product_backward model.layers.unit_scaling model.residual.Residual model.mixers.self_attention
        model.similarity.Scaled model.similarity.Similarity model.positions.Sinusoidal
        model.positions.PositionEncoding model.norms.LayerNorm model.norms._normalise_half_backward
        model.norms.EPSILON model.feed_forward.Rectified model.feed_forward.FeedForward data.corpora.load
        data.synthetic.generate.read data.synthetic.numbers.generate data.synthetic.numbers.SEED
        data.synthetic.number_sentences.sentence data.tokenized.prepare data.tokenized.tokenize
        data.vocabulary.Vocabulary data.vocabulary.training_sentences data.loader.TrainBatches data.packing.best_fit
        data.packing.pack_batch data.loader.eval_batches data.loader.POOL data.prefetch.Ahead data.prefetch.main
        runs.checkpoints.Checkpoints training.outcome.finish evaluation.translation.evaluate_translations
        decoding.translator.Translator decoding.translator._search decoding.translator.length_buckets
        decoding.beam_search.search decoding.top_k.top_k decoding.last_token.complete evaluation.scores.score
        evaluation.scores.score_apart evaluation.scores.__main__ evaluation.scores.multi_bleu evaluation.scores.moses
        evaluation.scores.split_compounds evaluation.attention_probe.measure_attention
        evaluation.attention_probe._sums
    """
    assert {f"tx.{name}" for name in expected.split()} - reached == set()
    other = """
        model.positions.Rotary model.positions.Learned model.mixers.Recurrent model.mixers.Mixer
        model.similarity.Additive model.norms.RMSNorm model.feed_forward.SwiGLU training.optimizer.cosine
        data.synthetic.recall.generate model.flops.training_flops decode.main train.main train.*
    """
    assert {f"tx.{name}" for name in other.split()} & reached == set()
    assert set(ENTRIES) <= reached


def test_what_is_set_apart_is_there():
    assert all((ROOT / f"{name}.py").is_file() for name in APART)


@pytest.mark.parametrize(
    ("field", "name", "there", "gone"),
    [
        ("model.positions", "rotary", "model.positions.Rotary", "model.positions.Sinusoidal"),
        ("model.mixer", "dilated", "model.mixers.Convolution", "model.mixers.self_attention"),
        ("model.feed_forward", "none", "model.feed_forward.feed_forwards.none", "model.feed_forward.FeedForward"),
        ("optim.schedule", "cosine", "training.optimizer.cosine", "training.optimizer.inverse_sqrt"),
        ("loss.name", "focal", "model.losses.focal", "model.losses.z_loss"),
        ("optim.optimizer", "muon", "training.optimizer.muon", "training.optimizer.adam"),
        ("data.corpus", "recall", "data.synthetic.recall.generate", "data.synthetic.numbers.generate"),
        ("data.corpus", "multi30k", "data.text_files.read", "data.synthetic.number_sentences.sentence"),
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
        assert "tx.model.positions.Sinusoidal" not in fingerprint.covered(written)
    for odd in ({"model": 3}, {"model": []}, {"data": "corpus"}):
        assert fingerprint.numerics(odd) == fingerprint.numerics({})


def test_it_is_quick_and_needs_no_jax():
    code = """
        import sys, time
        from experiments import registry
        from tx.runs import fingerprint
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

EXPERIMENT, REEVALUATION = (entry.rpartition(".")[0] for entry in ENTRIES)
PLACES = {"train": EXPERIMENT, "again": REEVALUATION}  # the others lie on the top level of the package
PACKAGE = {
    "__init__": "",
    "again": "def evaluate_with_trained_params(): pass",
    "registry": "class Registry: pass",
    "errors": "class UserError(Exception): pass",
    "train": """
        from tx.parts import parts
        def run_experiments(config):
            return parts[config.part](1)
        """,
    "parts": """
        from tx.registry import Registry
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
            file = folder.parent / f"{PLACES.get(name, f'tx.{name}').replace('.', '/')}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(textwrap.dedent(text))
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
        (train("return a.f(x)", "from tx import a"), train("from ..a import f as g\nreturn g(x)")),
        (
            train("return a.f(x)", "from tx import a"),
            train("return f(x)", f"from {REEVALUATION} import f"),  # handed on
        ),
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
    more = {"a": "def f(x): return x", "again": "from tx.a import f\ndef evaluate_with_trained_params(): return f(1)"}
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
    more["again"] = "from tx import a, b\ndef evaluate_with_trained_params(): return a.f, b.f, b.g"
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


def test_a_component_with_fields_counts_where_it_is_named_and_what_is_said_of_them_does_not(package):
    text = (
        "from tx.parts import parts\n\n\n@parts.register('two', 'beta1', reach=Field({}, 'm'))\ndef two(x): return {}\n"
    )
    found = {values: package("two", [text.format(*values)]) for values in ((8, 1), (9, 1), (8, 2))}
    assert found[8, 1] == found[9, 1] != found[8, 2]  # values are compared as those of other fields are
    assert package("one", [text.format(8, 1)]) == package("one")


@pytest.mark.parametrize(
    "more",
    [
        "tx.parts.RATE = OTHER",
        "setattr(tx.parts, 'RATE', OTHER)",
        "alias = tx.parts; alias.RATE = OTHER",
        "helper(OTHER)",
        "for RATE in [OTHER]: tx.parts.RATE = RATE",
        "if OTHER: pass",
        "for n in [OTHER]:\n        register(n)\n        tx.parts.RATE = n",
    ],
)
def test_what_an_added_file_changes_elsewhere_always_counts(package, more):
    found = [package("one", mine(other=value, more=more)) for value in (1, 2)]
    assert len({*found, package("one")}) == 3


@pytest.mark.parametrize(
    "more",
    [
        "import sys; sys.path.insert(0, str(OTHER))",
        "for n in (100, OTHER): register(n)",
        "for n in (100, OTHER):\n        if n > OTHER:\n            register(n)\n        else:\n            'Words'",
    ],
)
def test_what_an_added_file_says_of_other_runs_does_not_count(package, more):
    assert {package("one", mine(other=value, more=more)) for value in (1, 2)} == {package("one")}


def test_what_a_loop_over_runs_leaves_counts_where_it_is_used(package):
    text = "for n in (1, {}): register(n)\n    @parts.register('last')\n    def last(x): return n"
    assert package("last", mine(more=text.format(2))) != package("last", mine(more=text.format(3)))
    assert package("one", mine(more=text.format(2))) == package("one")


@pytest.mark.parametrize(
    "registered",
    [
        "own = parts.register('own')(own)",
        "_ = parts.register('own')(own)",
        "made, other = parts.register('own')(own), 3",
        "register = parts.register\n@register('own')\ndef made(x): return own(x)",
        "reg = parts\n@reg.register('own')\ndef made(x): return own(x)",
        "def part(name): return parts.register(name)\n@part('own')\ndef made(x): return own(x)",
    ],
)
def test_a_component_counts_however_it_is_registered(package, registered):
    text = "from tx.parts import parts\n\n\ndef own(x): return x * {}\n\n\n" + registered
    found = [package("own", ["import math\n", text.format(value)]) for value in (1, 2)]
    assert found[0] != found[1]
    assert {package("one", [text.format(value)]) for value in (1, 2)} == {package("one")}


def test_a_text_is_no_component_of_an_added_file(package):
    """A folder's name or one of TFDS is not looked for in the files that a sweep is in."""
    texts = PACKAGE["parts"].replace("model.part", "data.corpus")
    assert {package("one", mine(value), parts=texts) for value in (1, 2)} == {package("one", parts=texts)}


# Modules that an added file imports.

OWN = """
    from tx.parts import parts
    {imports}

    @parts.register("own")
    def own(x): return {call}(x)
    """
HELPER = """
    import math
    def act(x): return math.exp(x) * {}
    def unused(x): return {}
    """


@pytest.fixture
def with_helper(tmp_path):
    """Returns a function ({file: text}, part, which of the files are added) -> `Code.numerics`, in one folder."""
    root = tmp_path / "project" / "tx"
    for name, text in PACKAGE.items():
        file = root.parent / f"{PLACES.get(name, f'tx.{name}').replace('.', '/')}.py"
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(textwrap.dedent(text))

    def numerics(files, part="own", added=("own_ff.py",), folder="user"):
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(textwrap.dedent(text))
        return Code(root, [tmp_path / folder / name for name in added]).numerics({"model": {"part": part}})

    return numerics


@pytest.mark.parametrize("added", [("own_ff.py",), ("own_ff.py", "helper_rv.py"), ("helper_rv.py", "own_ff.py")])
@pytest.mark.parametrize(
    ("helper", "imports", "call"),
    [
        ("helper_rv.py", "from helper_rv import act", "act"),
        ("helper_rv.py", "import helper_rv as h", "h.act"),
        ("helper_rv.py", "", "__import__; from helper_rv import act; act"),
        ("lib/__init__.py", "import lib", "lib.act"),
        ("lib/deep/helper.py", "import lib.deep.helper", "lib.deep.helper.act"),
        ("lib/helper.py", "from lib import helper", "helper.act"),
    ],
)
def test_of_a_module_that_an_added_file_imports_counts_what_is_used(with_helper, added, helper, imports, call):
    own = OWN.format(imports=imports, call=call)
    if not imports:
        own = own.replace("return __import__; ", "").replace("; act(x)", "; return act(x)")
    added = added if helper == "helper_rv.py" else added[:1] if added[0] == "own_ff.py" else added[1:]
    found = {
        values: with_helper({"own_ff.py": own, helper: HELPER.format(*values)}, added=added)
        for values in ((1, 1), (2, 1), (1, 2))
    }
    assert found[1, 1] == found[1, 2] != found[2, 1]
    assert with_helper({}, "one", added) == with_helper({}, "one", ())


@pytest.mark.parametrize(
    ("helper", "imports", "call"),
    [
        ("helper_rv.py", "import importlib; h = importlib.import_module('helper_rv')", "h.act"),
        ("lib/deep.py", "from importlib import import_module; h = import_module(name='lib.deep')", "h.act"),
        ("helper_rv.py", "h = __import__('helper_rv')", "h.act"),
        ("helper_rv.py", "class Own:\n        from helper_rv import act", "Own.act"),
        ("helper_rv.py", "class Own:\n        if parts:\n            import helper_rv as h", "Own.h.act"),
    ],
)
def test_a_module_counts_however_it_is_imported(with_helper, helper, imports, call):
    own = OWN.format(imports=imports, call=call)
    found = [with_helper({"own_ff.py": own, helper: HELPER.format(value, 1)}) for value in (1, 2)]
    assert found[0] != found[1]
    assert with_helper({}, "one") == with_helper({}, "one", ())


def test_a_module_by_a_name_that_is_computed_is_any_of_a_users_own(with_helper):
    own = OWN.format(imports="import importlib, helper_rv", call="importlib.import_module('helper' + '_rv').act")
    found = [with_helper({"own_ff.py": own, "helper_rv.py": HELPER.format(value, 1)}) for value in (1, 2)]
    assert found[0] != found[1]


def test_modules_that_such_a_module_imports_and_registers(with_helper):
    files = {
        "own_ff.py": "import lib\nimport lib.broken\nfrom wandb import init\n",
        "lib/__init__.py": "from . import broken, parts_of_mine\nfrom .deep import act\n",
        "lib/broken.py": "x =",
        "lib/deep.py": HELPER.format(1, 1),
        "lib/parts_of_mine.py": OWN.format(imports="from lib import act, broken, gone", call="broken.f or gone or act"),
        "wandb/run.txt": "of no module",
    }
    before = with_helper(files)
    assert with_helper({"lib/deep.py": HELPER.format(1, 2)}) == before
    assert with_helper({"lib/deep.py": HELPER.format(2, 1)}) != before
    assert with_helper({"lib/deep.py": HELPER.format(1, 1)}) == before == with_helper(files, folder="moved")
    base = with_helper({}, "one", ())
    assert with_helper({}, "one") == base
    patched = [with_helper({"lib/deep.py": f"import tx.parts\ntx.parts.RATE = {value}\n"}, "one") for value in (3, 4)]
    assert len({base, *patched}) == 3  # as of an added file


def test_a_package_may_name_something_as_the_module_that_it_is_in(with_helper):
    """Though that cannot be read: half written, or no Python."""
    own = OWN.format(imports="from lib import scan", call="scan")
    whole = {"own_ff.py": own, "lib/__init__.py": "from .scan import scan\n", "lib/scan.py": "x ="}
    assert with_helper(whole)
    seen = {with_helper({"lib/scan.py": f"def scan(x):\n    return x * {value}\n"}) for value in (1, 2)}
    assert len(seen) == 2


def test_a_module_elsewhere_where_python_looks_counts_and_a_library_does_not(with_helper, tmp_path, monkeypatch):
    own = OWN.format(imports="from helper_elsewhere import act; import pytest", call="act or pytest")
    for folder, differs in (("site-packages", False), ("lib", True)):
        place = tmp_path / folder
        place.mkdir()
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(place))
            found = []
            for value in (1, 2):
                (place / "helper_elsewhere.py").write_text(textwrap.dedent(HELPER.format(value, 1)))
                found.append(with_helper({"own_ff.py": own}))
        assert (found[0] != found[1]) == differs
    assert "helper_elsewhere" not in sys.modules


# Files that are edited while a process lives.

EDITED = """
    import os, pathlib, sys, time, types
    from tx.runs import fingerprint
    file, helper, package = map(pathlib.Path, sys.argv[1:])
    os.environ["TX_IMPORT"] = str(file)

    def now():
        return fingerprint.numerics({"model": {"feed_forward": "own"}})

    def edit(path, old, new):
        path.write_text(path.read_text().replace(old, new))

    print(now(), now())
    edit(file, "+ 1", "+ 2")
    print(now(), now())
    edit(helper, "* 1", "* 2")
    print(now())
    edit(file, "return", "return (")  # half written
    print(now())
    edit(file, "return (", "return")
    edit(package, "CHUNK = 512", "CHUNK = 1024")
    time.sleep(1.1)
    print(now())
    sys.modules["tx.training.experiment"] = types.ModuleType("experiment")  # it makes runs by what it has loaded
    edit(file, "+ 2", "+ 3")
    print(now())
    """
ONE_FILE = """
    import sys
    from tx.runs import fingerprint
    print(fingerprint.numerics({"model": {"feed_forward": "own"}}))
    """


def test_it_follows_the_files_that_are_edited(tmp_path):
    """The oracle is a process of its own for each state of the files."""
    copied, file, helper = copy(tmp_path), tmp_path / "own_ff.py", tmp_path / "helper_rv.py"
    own = "from helper_rv import act\nfrom tx.model.feed_forward import feed_forwards\n\n\n"
    own += "@feed_forwards.register('own')\ndef own(x): return act(x) + {}\n"

    def write(number, factor):
        file.write_text(own.format(number))
        helper.write_text(f"def act(x): return x * {factor}\n")

    def python(code, *arguments):
        command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "TX_IMPORT": str(file)}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    write(1, 1)
    first, again, *later = python(EDITED, file, helper, copied / "runtime/backend.py")
    edited_file, edited_again, edited_helper, broken, edited_package, training = later
    assert (first, edited_file, edited_helper) == (again, edited_again, broken)
    assert edited_package == training
    write(2, 2)
    assert python(ONE_FILE) == [edited_package]
    edit(copied, "runtime/backend.py", "CHUNK = 1024", "CHUNK = 512")
    assert python(ONE_FILE) == [edited_helper]
    write(2, 1)
    assert python(ONE_FILE) == [edited_file]
    write(1, 1)
    assert python(ONE_FILE) == [first]
    assert len({first, edited_file, edited_helper, edited_package}) == 4


def test_the_same_in_every_version_of_python(package):
    """The digits are those of any version; they change with the words that tx/runs/fingerprint/references.py makes."""
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
    assert package(train=text) == "34cb1f074111"
