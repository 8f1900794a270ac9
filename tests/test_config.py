"""The configuration: what it refuses, in one line, and how a command line changes it."""

import decimal
import fractions
import json
import os
import sys
import textwrap

import ml_collections
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tx import cli, components
from tx import config as config_lib
from tx.errors import UserError
from tx.files import to_json
from tx.training.checks import check_config


def refused(call, *wanted):
    """Runs something that must raise UserError with one line that holds all of `wanted`."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for text in wanted:
        assert text in message


def updated(name, value):
    config = config_lib.get_config()
    config_lib.update(config, {name: value})
    return config_lib.fields(config)[name]


def test_the_defaults_are_the_papers_base_and_valid():
    config = config_lib.get_config()
    config_lib.validate(config)
    found = config_lib.fields(config)
    wanted = {
        "model.num_layers": 6,
        "model.d_model": 512,
        "model.d_ff": 2048,
        "model.num_heads": 8,
        "model.d_k": 64,
        "model.d_v": 64,
        "model.dropout": 0.1,
        "loss.label_smoothing": 0.1,
        "train.steps": 100_000,
        "optim.warmup_steps": 4000,
        "optim.beta1": 0.9,
        "optim.beta2": 0.98,
        "optim.epsilon": 1e-9,
        "decode.beam": 4,
        "decode.alpha": 0.6,
        "decode.extra_length": 50,
    }
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("model.num_head", "model.num_heads"),
        ("modle.d_ff", "model.d_ff"),
        ("train.step", "train.steps"),
        ("num_heads", "model.num_heads"),
        ("decode.alpha.x", "decode.alpha"),
        ("optim.warmup", "optim.warmup_steps"),
        ("optim.lr", "optim.lr_factor"),
        ("model.heads", "model.num_heads"),
        ("data.batch", "data.batch_rows"),
    ],
)
def test_an_unknown_field_names_the_nearest(name, nearest):
    refused(lambda: updated(name, 1), f"no configuration field {name!r}", f"nearest is {nearest!r}")


@pytest.mark.parametrize("name", ["", "x", "train.no such\nfield"])
def test_any_unknown_field_is_one_line(name):
    refused(lambda: updated(name, 1), "no configuration field")


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("train.steps", "1_000", 1000),
        ("train.steps", 7, 7),
        ("train.steps", "1e3", 1000),
        ("train.steps", "2.5e1", 25),
        ("train.steps", "12.0", 12),
        ("optim.epsilon", "1e-9", 1e-9),
        ("optim.lr_factor", "2", 2.0),
        ("optim.lr_factor", 2, 2.0),
        ("model.dropout", 0, 0.0),
        ("model.projection_bias", "false", False),
        ("model.projection_bias", "True", True),
        ("model.projection_bias", "0", False),
        ("model.projection_bias", "1", True),
        ("model.projection_bias", False, False),
        ("data.dir", "12", "12"),
        ("data.corpus", "a/b", "a/b"),
    ],
)
def test_values_are_taken_by_the_fields_type(name, value, parsed):
    got = updated(name, value)
    assert got == parsed
    assert type(got) is type(parsed)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("train.steps", "1.5", "a whole number below 2^31"),
        ("train.steps", "1e-3", "a whole number below 2^31"),
        ("train.steps", "1e10", "a whole number below 2^31"),
        ("train.steps", "1e999", "a whole number below 2^31"),
        ("train.steps", "nan", "a whole number below 2^31"),
        ("train.steps", "", "a whole number below 2^31"),
        ("train.steps", "many\nmany", "a whole number below 2^31"),
        ("train.steps", 1.0, "a whole number below 2^31"),
        ("train.steps", True, "a whole number below 2^31"),
        ("train.steps", None, "a whole number below 2^31"),
        ("optim.lr_factor", "fast", "a finite number"),
        ("optim.lr_factor", True, "a finite number"),
        ("optim.lr_factor", "nan", "a finite number"),
        ("optim.lr_factor", "-inf", "a finite number"),
        ("optim.lr_factor", "1e999", "a finite number"),
        ("optim.lr_factor", float("nan"), "a finite number"),
        ("optim.lr_factor", float("inf"), "a finite number"),
        ("optim.lr_factor", 10**400, "a finite number"),
        ("model.projection_bias", "yes", "true or false"),
        ("model.projection_bias", 1, "true or false"),
        ("data.dir", 12, "a string of UTF-8"),
    ],
)
def test_a_value_of_another_type_is_refused(name, value, kind):
    refused(lambda: updated(name, value), f"{name} takes {kind}, got")


def test_a_refused_update_says_where_it_came_from():
    config = config_lib.get_config()
    refused(lambda: config_lib.update(config, {"train.steps": "x"}, where="scale smoke"), "scale smoke: ")


POSITIVE = [
    *("vocab_size", "num_layers", "d_model", "d_ff", "num_heads", "d_k", "d_v", "max_positions"),
    *("data.row_length", "data.batch_rows"),
    *("train.steps", "train.log_every", "train.eval_every", "train.checkpoint_every", "train.keep_checkpoints"),
    *("decode.beam", "decode.batch_tokens", "decode.average_last"),
    "parallel.fsdp_shards",
]


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize("name", [name if "." in name else f"model.{name}" for name in POSITIVE])
def test_sizes_are_positive(name, value):
    refused(lambda: validated(**{name: value}), f"{name} must be positive; got {value}")


def validated(**diff):
    config = config_lib.get_config()
    config_lib.update(config, diff)
    config_lib.validate(config)
    return config


@pytest.mark.parametrize(
    "name",
    [
        *("model.target_spaces", "decode.extra_length", "decode.alpha", "optim.warmup_steps", "train.seed"),
        "parallel.devices",
    ],
)
def test_zero_where_it_means_something(name):
    validated(**{name: 0})
    refused(lambda: validated(**{name: -1}), f"{name} must be at least 0; got -1")


@pytest.mark.parametrize(
    "name",
    [
        *("model.dropout", "model.attention_dropout", "model.relu_dropout"),
        *("loss.label_smoothing", "optim.beta1", "optim.beta2"),
    ],
)
def test_shares_lie_between_0_and_1(name):
    validated(**{name: 0.0})
    validated(**{name: 0.999})
    for value in (-0.1, 1.0, 1.5):
        refused(lambda value=value: validated(**{name: value}), f"{name} must lie in [0, 1); got {value}")


@pytest.mark.parametrize(
    ("diff", "words"),
    [
        ({"optim.epsilon": 0.0}, ["optim.epsilon must be positive"]),
        ({"optim.lr_factor": 0.0}, ["optim.lr_factor must be positive"]),
        ({"model.norm": "middle"}, ["model.norm is one of post, pre", "'middle'"]),
        ({"model.dtype": "float16"}, ["model.dtype is one of float32, bfloat16", "'float16'"]),
        ({"model.sinusoid_layout": "x"}, ["model.sinusoid_layout is one of concatenated, interleaved"]),
        ({"loss.smooth_over": "x"}, ["loss.smooth_over is one of others, all"]),
        ({"model.d_model": 15}, ["model.d_model must be even", "15"]),
        ({"data.source": "de"}, ["data.source and data.target are both 'de'"]),
        ({"parallel.mode": "pjit"}, ["parallel.mode is one of jit, pmap", "'pjit'"]),
        ({"parallel.mode": "pmap", "parallel.fsdp_shards": 2}, ["parallel.fsdp_shards=2 needs parallel.mode=jit"]),
        ({"decode.average_last": 6}, ["decode.average_last=6", "train.keep_checkpoints is 5"]),
    ],
    ids=str,
)
def test_what_no_run_can_have(diff, words):
    refused(lambda: validated(**diff), *words)


@pytest.mark.parametrize(
    ("steps", "every", "last"),
    [
        *((5000, 1500, 4), (5000, 1500, 5), (750, 150, 5), (750, 150, 6), (500, 5000, 1), (500, 5000, 2)),
        *((100_000, 1500, 5), (3000, 1500, 2), (3000, 1500, 3), (3001, 1500, 3), (3, 1, 3), (3, 1, 4), (1, 1, 1)),
    ],
)
def test_an_average_of_more_checkpoints_than_a_run_leaves_is_refused(steps, every, last):
    """Found before the training, not after it."""
    there = len([step for step in range(1, steps + 1) if step % every == 0 or step == steps])
    diff = {"train.steps": steps, "train.checkpoint_every": every, "train.keep_checkpoints": 9}
    diff |= {"decode.average_last": last}
    checked = lambda **diff: check_config(validated(**diff))  # noqa: E731
    if last <= there:
        checked(**diff)
        return
    validated(**diff)  # of a run that was trained already, other averages can be had
    words = (f"decode.average_last={last}", f"train.steps={steps} holds {there}", f"train.checkpoint_every={every}")
    refused(lambda: checked(**diff), *words, f"set decode.average_last={there}")
    checked(**diff | {"decode.average_last": there})


def test_an_odd_width_is_fine_without_sinusoids():
    validated(**{"model.d_model": 15, "model.positions": "learned"})


def test_where_a_run_is_computed_is_no_difference():
    old, new = (config_lib.get_config() for _ in range(2))
    config_lib.update(new, {"parallel.devices": 8, "parallel.mode": "pmap"})
    before, after = old.to_dict(), new.to_dict()
    assert config_lib.differences(before, after) == {}
    del before["parallel"]
    assert config_lib.differences(before, after) == {}
    after["model"]["norm"] = "pre"
    assert config_lib.differences(before, after) == {"model.norm": ("post", "pre")}


# Any field with any value

DEFAULTS = config_lib.fields(config_lib.get_config())
any_text = st.text(st.characters(exclude_categories=[]))  # also what stands for bytes that are not UTF-8
# Much of this is a value of some field, and most is a value of none.
any_value = (
    st.none()
    | st.booleans()
    | st.integers(-3, 600)
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | any_text
    | st.from_type(type)
    | st.binary()
    | st.lists(st.integers())
    | st.dictionaries(any_text, st.integers())
    | st.sampled_from([0, -0.0, 0.5, 1, "1_0", "2", " 3 ", "1e-3", "TRUE", "0x10", "\u0663", "--and", "a=b", "", "\n"])
    | st.sampled_from([np.float32(0.5), np.int64(7), np.bool_(True), np.str_("8"), np.eye(3), 10**5000, "9" * 5000])
    | st.sampled_from(
        ["pre", "cudnn", "bfloat16", "all", "pmap", "learned", "interleaved", "de", fractions.Fraction(2)]
    )
    | st.sampled_from([ml_collections.ConfigDict({"a": 1}), ml_collections.FieldReference(3), decimal.Decimal("NaN")])
)
any_diff = st.dictionaries(st.sampled_from(sorted(DEFAULTS)), any_value, min_size=1, max_size=3)


def taken(diff):
    """The configuration of a diff, or None where it is refused in a line."""
    config = config_lib.get_config()
    try:
        config_lib.update(config, diff)
        config_lib.validate(config)
    except UserError as error:
        message = str(error)
    else:
        return config
    assert len(message.splitlines()) == 1
    return None


def as_read_back(config):
    """What a result.json of this configuration holds."""
    return json.loads(to_json({"config": config.to_dict()}).encode().decode())["config"]


@settings(max_examples=300)
@given(any_diff)
@example({"optim.lr_factor": 10**5000})
@example({"train.seed": 2**31})
@example({"train.steps": -(10**5000)})
@example({"data.dir": "\udcff"})
@example({"data.dir": np.eye(3)})
def test_any_values_make_a_typed_configuration_that_files_keep_or_are_refused_in_a_line(diff):
    config = taken(diff)
    if config is None:
        return
    found = config_lib.fields(config)
    assert {name: type(value) for name, value in found.items()} == {k: type(v) for k, v in DEFAULTS.items()}
    assert {name for name in found if found[name] != DEFAULTS[name]} <= diff.keys()
    assert config_lib.differences(config.to_dict(), as_read_back(config)) == {}
    assert config_lib.fields(as_read_back(config)) == found


def test_whole_numbers_of_numpy_are_whole_numbers():
    config = updated_by({"model.num_heads": np.int64(4), "train.steps": np.arange(9)[7]})
    assert [type(value) for value in (config.model.num_heads, config.train.steps)] == [int, int]
    assert (config.model.num_heads, config.train.steps) == (4, 7)
    for value in (np.bool_(True), True, np.float32(4.0), np.int64(2**31)):
        with pytest.raises(UserError, match="takes a whole number"):
            updated_by({"model.num_heads": value})


def test_a_folder_in_one_whose_name_is_not_utf8_is_refused_in_a_line(tmp_path, monkeypatch):
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    monkeypatch.chdir(tmp_path / os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match=r"data\.corpus takes a string of UTF-8, got"):
        updated_by({"data.corpus": "files:text"})


@settings(max_examples=50)
@given(any_text)
def test_a_name_of_any_characters_is_refused_in_a_line(name):
    if name not in DEFAULTS:
        assert taken({name: 1}) is None


def value_of(name):
    """Values of a field's type, all of which `update` takes."""
    return {
        bool: st.booleans(),
        int: st.integers(1 - 2**31, 2**31 - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(),  # without surrogates
    }[type(DEFAULTS[name])]


any_typed_diff = st.lists(st.sampled_from(sorted(DEFAULTS)), max_size=8).flatmap(
    lambda names: st.fixed_dictionaries({name: value_of(name) for name in names})
)


def updated_by(diff):
    config = config_lib.get_config()
    config_lib.update(config, diff)
    return config


@settings(max_examples=50)
@given(any_typed_diff)
def test_what_is_printed_parses_back(diff):
    wanted = config_lib.fields(updated_by(diff))
    for argv in (
        [f"--config.{name}={value}" for name, value in diff.items()],
        [part for name, value in diff.items() for part in (f"--config.{name}", str(value))],
    ):
        _, parsed, rest = cli.split_config_arguments(argv)
        assert rest == []
        assert config_lib.fields(updated_by(parsed)) == wanted


@settings(max_examples=50)
@given(any_typed_diff, any_typed_diff)
def test_differences_are_those_of_the_leaves_whichever_comes_first(one, other):
    before, after = updated_by(one), updated_by(other)
    a, b = config_lib.fields(before), config_lib.fields(after)
    found = config_lib.differences(before.to_dict(), as_read_back(after))
    assert found == {name: (a[name], b[name]) for name in a if a[name] != b[name] and not config_lib.says_where(name)}
    back = config_lib.differences(as_read_back(after), before.to_dict())
    assert back == {name: pair[::-1] for name, pair in found.items()}
    assert config_lib.differences(before.to_dict(), as_read_back(before)) == {}


# The command line


def test_configuration_arguments_are_told_from_others():
    argv = ["--config=f.py:a/h=1@s", "--workdir", "w", "--config.train.steps", "5", "--config.model.norm=pre", "--x=1"]
    spec, diff, rest = cli.split_config_arguments(argv)
    assert spec == "f.py:a/h=1@s"
    assert diff == {"train.steps": "5", "model.norm": "pre"}
    assert rest == ["--workdir", "w", "--x=1"]
    assert cli.split_config_arguments(["--config", "f.py", "--configs=1"]) == ("f.py", {}, ["--configs=1"])
    assert cli.split_config_arguments([]) == (None, {}, [])
    for argument in ("--config", "--config.train.steps"):
        refused(lambda a=argument: cli.split_config_arguments([a]), f"{argument} needs a value")


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "mine" / "config.py"
    path.parent.mkdir()
    (path.parent / "__init__.py").touch()
    (path.parent / "sizes.py").write_text("WIDTH = 32\n")
    code = """
        from mine import sizes
        from tx import config as config_lib

        def get_config(name="base"):
            config = config_lib.get_config()
            config_lib.update(config, {"name": name, "model.d_model": sizes.WIDTH})
            return config
    """
    path.write_text(textwrap.dedent(code))
    return path


def test_a_configuration_file_with_overrides(config_file):
    argv = [f"--config={config_file}:a/h=1@s", "--config.train.steps=5", "--config.model.dropout", "0", "--workdir=w"]
    config, rest = cli.config_from(argv)
    assert rest == ["--workdir=w"]
    assert (config.name, config.model.d_model) == ("a/h=1@s", 32)
    assert (config.train.steps, config.model.dropout) == (5, 0.0)
    config, _ = cli.config_from([f"--config={config_file}"])
    assert config.name == "base"


START = "from tx import config\ndef get_config():\n    c = config.get_config()\n"


def test_a_configuration_file_is_read_as_a_command_line_is(tmp_path):
    """A component that it chooses comes with its defaults, and the command line may give what it leaves open."""
    code = """
        from ml_collections import config_dict
        from tx import config


        def get_config():
            c = config.get_config()
            c.optim.optimizer = "adamw"
            c.train.steps = config_dict.placeholder(int)
            with c.model.ignore_type():
                c.model.num_heads = "4"
            return c
    """
    (tmp_path / "mine.py").write_text(textwrap.dedent(code))
    config, _ = cli.config_from([f"--config={tmp_path}/mine.py", "--config.train.steps=500"])
    assert (config.train.steps, config.model.num_heads) == (500, 4)
    assert config.optim.adamw.weight_decay == components.known_fields()["optim.adamw.weight_decay"].default
    refused(lambda: cli.config_from([f"--config={tmp_path}/mine.py"]), "train.steps takes a whole number")


def test_a_configuration_file_may_have_dataclasses(tmp_path):
    code = """
        from __future__ import annotations

        import dataclasses

        from tx import config


        @dataclasses.dataclass
        class Sizes:
            width: int = 32


        def get_config():
            c = config.get_config()
            c.model.d_model = Sizes().width
            return c
    """
    (tmp_path / "mine.py").write_text(textwrap.dedent(code))
    for _ in range(2):
        assert cli.load_config(f"{tmp_path}/mine.py").model.d_model == 32


def test_what_a_configuration_file_imports_later_is_found(tmp_path, monkeypatch):
    """It looks where the file itself has told Python to look, and beside the folder that it lies in."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = list(sys.path)
    code = """
        import pathlib
        import sys

        sys.path.insert(0, str(pathlib.Path(__file__).parent / "helpers"))


        def get_config():
            from tx import config
            from {package} import widths_beside
            import widths_of_helpers

            c = config.get_config()
            c.model.d_model = widths_beside.WIDTH + widths_of_helpers.WIDTH
            return c
    """
    folder = tmp_path / "package_of_a_config"
    (folder / "helpers").mkdir(parents=True)
    (folder / "widths_beside.py").write_text("WIDTH = 32\n")
    (folder / "helpers" / "widths_of_helpers.py").write_text("WIDTH = 16\n")
    (folder / "mine.py").write_text(textwrap.dedent(code).format(package=folder.name))
    assert cli.load_config(f"{folder}/mine.py").model.d_model == 48
    assert sys.path == [str(folder / "helpers"), *before]  # which the file has asked for; nothing else stays


def test_a_command_line_without_a_usable_configuration(config_file, tmp_path):
    def read(*argv):
        return lambda: cli.config_from(list(argv))

    refused(read("--workdir=w"), "--config is missing")
    refused(read(f"--config={tmp_path}/none.py:x"), "no Python file", "none.py")
    refused(read(f"--config={tmp_path}"), "no Python file")
    refused(read("--config="), "no Python file")
    (tmp_path / "config.txt").touch()
    refused(read(f"--config={tmp_path}/config.txt"), "no Python file")
    (tmp_path / "empty.py").touch()
    refused(read(f"--config={tmp_path}/empty.py"), "defines no get_config")
    (tmp_path / "named.py").write_text("def get_config(name): ...\n")
    refused(read(f"--config={tmp_path}/named.py"), "takes a name")
    (tmp_path / "nameless.py").write_text("def get_config(): ...\n")
    refused(read(f"--config={tmp_path}/nameless.py:x"), "takes no name")
    for number, (body, *words) in enumerate(
        [
            ("x =", "gives no configuration: SyntaxError"),
            ("import nope", "gives no configuration: ModuleNotFoundError: No module named 'nope'"),
            ("from . import x", "gives no configuration: ImportError: attempted relative import with no known parent"),
            ("raise SystemExit(3)", "gives no configuration: SystemExit: 3"),
            (f"{START}    return {{}}", "must return an ml_collections.ConfigDict; it gives a dict"),
            (f"{START}    c.train.steps = 'x'\n    return c", "gives no configuration: TypeError"),
            (f"{START}    c.optim.optimizer = 'sgd'\n    return c", "optim.beta1 belongs to"),
            (f"{START}    with c.unlocked():\n        c.mine = 3\n    return c", "no configuration field 'mine'"),
            (f"{START}    with c.unlocked():\n        del c.train.seed\n    return c", "train.seed is missing; let"),
        ]
    ):
        (tmp_path / f"wrong{number}.py").write_text(f"{body}\n")
        refused(read(f"--config={tmp_path}/wrong{number}.py"), "--config", f"wrong{number}.py", *words)
    refused(read(f"--config={config_file}", "--config.train.setps=1"), "command line", "'train.steps'")
    refused(read(f"--config={config_file}", "--config.train.steps=0"), "train.steps must be positive")


def test_a_field_added_since_had_its_default():
    old = {"model": {"d_k": 64, "gone": 1}, "parallel": {"devices": 8}}
    new = {"model": {"d_k": 32, "norm": "pre", "positions": "sinusoidal"}, "parallel": {"devices": 1}}
    assert config_lib.differences(old, new) == {
        "model.d_k": (64, 32),
        "model.gone": (1, "(absent)"),
        "model.norm": ("post", "pre"),
    }


@pytest.mark.parametrize(
    ("diff", "lacking"),
    [
        ({"model.dtype": "float32"}, "model.dtype=bfloat16"),
        ({"model.d_v": 32}, "model.d_k = model.d_v"),
        ({"model.d_k": 4, "model.d_v": 4}, "model.d_k a multiple of 8"),
        ({"model.attention_dropout": 0.1}, "model.attention_dropout=0"),
        ({"data.row_length": 64}, "data.row_length a multiple of 128"),
    ],
    ids=str,
)
def test_what_cudnn_lacks_is_refused(diff, lacking):
    config = config_lib.get_config()
    config_lib.update(config, {"model.attention_backend": "cudnn", "model.dtype": "bfloat16"})
    config_lib.validate(config)
    config_lib.update(config, diff)
    words = ("model.attention_backend=cudnn needs", lacking, "or set model.attention_backend=xla")
    refused(lambda: config_lib.validate(config), *words)


def test_differences_are_described_in_the_words_that_are_asked_for():
    before, after = {"model": {"gone": "{x}", "d_k": 1}, "name": "a"}, {"model": {"d_k": 2}, "name": "b"}
    described = config_lib.describe_differences
    assert described(before, before) == []
    assert described(before, after, apart={"name"}) == [
        "model.d_k was 1, is now 2",
        "model.gone was {x}, is now absent",
    ]
    arrows = described(before, after, "{field} {stored!r} -> {current}", absent="(absent)")
    assert arrows == ["model.d_k 1 -> 2", "model.gone '{x}' -> (absent)", "name 'a' -> b"]
