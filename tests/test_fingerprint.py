"""The fingerprint of the code: what changes it and what does not."""

import pathlib
import shutil

import pytest

import tx
from tx import fingerprint

ROOT = pathlib.Path(tx.__file__).parent


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The package somewhere else; returns its folder and a function that gives the fingerprint."""
    shutil.copytree(ROOT, tmp_path / "tx", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "__file__", str(tmp_path / "tx" / "fingerprint.py"))
    return tmp_path / "tx", fingerprint.numerics.__wrapped__


def test_words_and_layout_make_no_difference(copied):
    folder, numerics = copied
    assert numerics() == fingerprint.numerics()
    path = folder / "loss.py"
    text = path.read_text()
    assert text.count("CHUNK = 512  # tokens whose logits exist at a time") == 1
    text = text.replace("CHUNK = 512  # tokens whose logits exist at a time", "\n\nCHUNK = (\n  512\n)  # another word")
    path.write_text(text.replace('"""The smoothed', '"""What is the smoothed'))
    assert numerics() == fingerprint.numerics()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("loss.py", "CHUNK = 512", "CHUNK = 256"),
        ("data/packing.py", "POOL = 4096", "POOL = 4097"),
        ("config.py", "c.optim.beta2 = 0.98", "c.optim.beta2 = 0.99"),
    ],
)
def test_a_number_does(copied, file, old, new):
    folder, numerics = copied
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    assert numerics() != fingerprint.numerics()


def test_a_new_file_counts_and_what_is_left_out_is_there(copied):
    folder, numerics = copied
    (folder / "logs.py").write_text("")
    assert numerics() == fingerprint.numerics()
    (folder / "another.py").write_text("")
    assert numerics() != fingerprint.numerics()
    assert all((ROOT / name).is_file() for name in fingerprint.APART)
