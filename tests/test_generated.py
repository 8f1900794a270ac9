"""Generated corpora are made once: kept as they were made, and made again when what makes them has changed."""

import importlib.metadata
import subprocess
import sys

import pytest

from tx import plugins
from tx.data import cache
from tx.data.synthetic import generate, numbers, recall
from tx.errors import UserError


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def made(monkeypatch):
    """The pairs of languages that were made, in order, of a small corpus in the place of `numbers`."""
    calls = []

    def generate(source, target):
        calls.append((source, target))
        return {"train": [(f"{source} 1", f"{target} é\u2028")], "test": []}

    monkeypatch.setattr(numbers, "generate", generate)
    return calls


def entries():
    return sorted((cache.root() / "generated").glob("[!.]*"))


def test_what_is_kept_is_what_was_made():
    for _ in ("made", "kept"):
        assert generate.read("numbers", "de", "en") == numbers.generate("de", "en")
        assert generate.read("recall", "en", "de") == recall.generate()


def test_it_is_made_once_for_each_pair_of_languages(made):
    for _ in range(2):
        assert generate.read("numbers", "en", "de") == {"train": [("en 1", "de é\u2028")], "test": []}
        assert generate.read("numbers", "de", "en") == {"train": [("de 1", "en é\u2028")], "test": []}
    assert made == [("en", "de"), ("de", "en")]


def test_it_is_made_again_when_its_modules_or_its_libraries_have_changed(made, monkeypatch):
    generate.read("numbers", "en", "de")
    with monkeypatch.context() as patch:
        patch.setattr(generate, "_source", lambda module: "edited" if module == "number_sentences" else "")
        generate.read("numbers", "en", "de")
    with monkeypatch.context() as patch:
        patch.setattr(generate.importlib.metadata, "version", lambda library: "999")
        generate.read("numbers", "en", "de")
    generate.read("numbers", "en", "de")
    assert len(made) == len(entries()) == 3


OWN = """
from tx.data.synthetic.generate import Generator, generators

def mine(source, target):
    return {{"train": [("{text}", "b")], "test": []}}

generators.register("mine")(Generator(mine, {modules}, {libraries}))
"""


@pytest.fixture
def read_own(tmp_path, monkeypatch):
    """Reads the corpus of a file of one's own that is imported as by a process that has just started."""
    path = tmp_path / "mine.py"
    monkeypatch.setenv(plugins.VARIABLE, str(path))

    def read(text, modules=(), libraries=()):
        path.write_text(OWN.format(text=text, modules=modules, libraries=libraries))
        with monkeypatch.context() as patch:
            patch.setattr(generate.generators, "_components", dict(generate.generators._components))
            patch.delitem(sys.modules, f"tx_import_{path}", raising=False)
            plugins.load()
            return generate.read("mine", "en", "de")["train"][0][0]

    return read


def test_a_generator_of_one_s_own_is_made_again_when_its_file_has_changed(read_own):
    assert [read_own(text) for text in ("first", "second", "first")] == ["first", "second", "first"]
    assert len(entries()) == 2


def test_a_generator_of_one_s_own_names_modules(read_own, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for number in range(2):
        (tmp_path / "helper_of_mine.py").write_text(f"a = {number}")
        assert read_own("text", ("recall", "helper_of_mine")) == "text"
    assert len(entries()) == 2
    with pytest.raises(UserError, match=r"the module 'no_such' of a generator has no source here.*; leave the gen"):
        read_own("text", ("no_such",))


@pytest.mark.parametrize("name", ["flax.linen", ""])
def test_a_generator_of_one_s_own_names_libraries_as_pip_does(read_own, name):
    assert read_own("text", libraries=("flax",)) == "text"
    with pytest.raises(UserError, match=f"the library '{name}' of a generator is no distribution .*; give") as error:
        read_own("text", libraries=("flax", name))
    assert "\n" not in str(error.value)
    assert len(entries()) == 1


def test_a_generator_without_a_file_is_refused():
    made = {}
    exec("def generate(source, target): return {}", made)
    for function in (made["generate"], print):
        with pytest.raises(
            UserError, match=f"generator '{function.__name__}' is in no file .*; write it as a function"
        ):
            generate.Generator(function, ())


@pytest.mark.parametrize("name", ["numbers", "recall"])
def test_the_key_of_the_project_s_own_is_of_their_modules_and_libraries_alone(monkeypatch, name):
    monkeypatch.setattr(generate, "_source", lambda module: f"<{module}>")
    made = generate.generators[name]
    sources = [f"<{module}>" for module in made.modules]
    versions = {library: importlib.metadata.version(library) for library in made.libraries}
    generate.read(name, "en", "de")
    assert [path.name for path in entries()] == [cache.fingerprint(1, name, "en", "de", *sources, versions)]


def test_it_is_made_again_when_it_is_damaged(made):
    generate.read("numbers", "en", "de")
    file = entries()[0] / "pairs.json"
    file.write_text(file.read_text(encoding="utf-8").replace("en 1", "en 2"), encoding="utf-8")
    assert generate.read("numbers", "en", "de")["train"] == [("en 1", "de é\u2028")]
    assert len(made) == 2


def test_a_pair_of_languages_that_it_does_not_have_leaves_nothing():
    with pytest.raises(UserError, match="en-de or de-en, not en-fr"):
        generate.read("numbers", "en", "fr")
    assert not entries()


def test_what_is_kept_needs_no_libraries():
    generate.read("numbers", "en", "de")
    code = (
        "import sys; from tx.data.synthetic import generate; generate.read('numbers', 'en', 'de')\n"
        "print(*{'num2words', 'babel', 'tx.data.synthetic.numbers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
