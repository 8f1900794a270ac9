"""TFDS's own WMT builder, let loose on a mirror of a few lines, then read where `import tensorflow` fails.

Preparing needs TensorFlow: TX_TF_PYTHON names a Python that has it (the `wmt` extra).
"""

import functools
import hashlib
import http.server
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import threading

import pytest

pytestmark = pytest.mark.slow

PROJECT = pathlib.Path(__file__).parents[1]
LINES = {"europarl": 40, "commoncrawl": 30, "news": 20, "dev": 7, "test": 5}

# Points TFDS's builder at the mirror, with the mirror's own checksums, and prepares through tx.data.
PREPARE = """
import json, sys
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.translate import wmt, wmt14
from tx import config
from tx.data import builders, corpora
mirror, checksums = json.loads(sys.argv[1])
for subset in wmt.DATASET_MAP.values():
    subset._urls = [url.replace("http://", mirror) for url in subset._urls]
infos = {mirror + url: UrlInfo(size, sha256, None) for url, (size, sha256) in checksums.items()}
wmt14.Wmt14Translate.url_infos = infos
builders.main(["wmt14_translate/de-en"])
c = config.get_config()
corpus = corpora.load(c.data)
print(json.dumps({split: corpus.pairs(split) for split in corpus.splits}))
"""

READ = """
import json
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *args: None if name == "tensorflow" else find(name, *args)
try:
    import tensorflow
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("TensorFlow is here after all")
from tx import config
from tx.data import tokenized
c = config.get_config()
data = tokenized.prepare(c.data, 400, log=lambda line: None)
texts = {split: data.pairs(split) for split in data.splits}
for split, pairs in texts.items():
    ids = data.splits[split]
    decode = data.vocabulary.decode
    assert pairs == [(decode(ids.source(i)), decode(ids.target(i))) for i in range(len(ids))]
print(json.dumps(texts))
"""


def sentences(kind, language):
    return [f"{language} {kind} Satz {i}, viele Wörter" for i in range(LINES[kind])]


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))


def parallel(stem, kind):
    return {f"{stem}.{language}": "\n".join(sentences(kind, language)) + "\n" for language in ("de", "en")}


def sgm(kind, language):
    return "".join(f'<seg id="{i}">{s}</seg>\n' for i, s in enumerate(sentences(kind, language)))


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Yields the address of a server of small archives under their upstream names, and their checksums."""
    root = tmp_path_factory.mktemp("mirror")
    tar(
        root / "www.statmt.org/wmt13/training-parallel-europarl-v7.tgz",
        parallel("training/europarl-v7.de-en", "europarl"),
    )
    tar(
        root / "www.statmt.org/wmt13/training-parallel-commoncrawl.tgz",
        parallel("commoncrawl.de-en", "commoncrawl"),
    )
    tar(
        root / "www.statmt.org/wmt14/training-parallel-nc-v9.tgz",
        parallel("training/news-commentary-v9.de-en", "news"),
    )
    dev = parallel("dev/newstest2013", "dev")
    dev["dev/newstest2014-deen-src.de.sgm"] = sgm("test", "de")
    dev["dev/newstest2014-deen-ref.en.sgm"] = sgm("test", "en")
    tar(root / "data.statmt.org/wmt19/translation-task/dev.tgz", dev)
    checksums = {
        str(path.relative_to(root)): (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in root.rglob("*.tgz")
    }
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=root)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", checksums
    server.shutdown()
    server.server_close()


# Row base at scale `paper`, made small, where TensorFlow cannot be imported.
TRAIN = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *args: None if name == "tensorflow" else find(name, *args)
from tx import train
sizes = {"vocab_size": 400, "num_layers": 1, "d_model": 16, "d_ff": 16, "num_heads": 2, "d_k": 4, "d_v": 4}
small = [f"--config.model.{name}={value}" for name, value in sizes.items()]
small += ["--config.data.batch_rows=2", "--config.train.steps=2", "--config.decode.extra_length=1"]
train.main(["--config=experiments/config.py:table3/base@paper", f"--workdir={sys.argv[1]}", *small])
"""


def run(python, code, cache, *args):
    environment = os.environ | {
        "TX_CACHE_DIR": str(cache),
        "PYTHONPATH": str(PROJECT),
        "TFDS_DATA_DIR": str(cache),
    }
    environment.pop("TX_DATA_DIR", None)
    return subprocess.run(
        [python, "-c", code, *args], env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def tf_python():
    python = os.environ.get("TX_TF_PYTHON")
    if not python:
        pytest.skip("TX_TF_PYTHON names no Python with TensorFlow; preparing TFDS's own sets needs one")
    return python


def test_wmt14_prepared_with_tensorflow_trains_without(tf_python, mirror, tmp_path):
    prepared = run(tf_python, PREPARE, tmp_path, json.dumps(mirror))
    assert prepared.returncode == 0, prepared.stderr[-3000:]
    read = run(sys.executable, READ, tmp_path)
    assert read.returncode == 0, read.stderr[-3000:]
    splits = json.loads(read.stdout)
    assert splits == json.loads(prepared.stdout.splitlines()[-1])
    expected = {"train": ("europarl", "commoncrawl", "news"), "validation": ("dev",), "test": ("test",)}
    for split, kinds in expected.items():
        want = [list(pair) for k in kinds for pair in zip(sentences(k, "en"), sentences(k, "de"), strict=True)]
        assert sorted(splits[split]) == sorted(want)
    trained = run(sys.executable, TRAIN, tmp_path, str(tmp_path / "run"))
    assert trained.returncode == 0, trained.stderr[-3000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["data"]["corpus"] == "wmt14_translate/de-en"
    assert result["train"]["steps"] == 2
    assert result["tests"]["validation"]["sentences"] == LINES["dev"]


def test_a_tampered_download_is_refused(tf_python, mirror, tmp_path):
    address, checksums = mirror
    wrong = {url: (size, "0" * 64) for url, (size, _) in checksums.items()}
    prepared = run(tf_python, PREPARE, tmp_path, json.dumps((address, wrong)))
    assert prepared.returncode != 0
    assert "wrong checksum" in prepared.stderr
    assert not list(tmp_path.rglob("dataset_info.json"))


def test_an_unprepared_set_says_what_to_do(tmp_path):
    code = "from tx.errors import one_line_errors\n" + f"@one_line_errors\ndef main(): exec({READ!r}, {{}})\nmain()"
    read = run(sys.executable, code, tmp_path)
    assert read.returncode == 2
    assert read.stderr.startswith("error: wmt14_translate/de-en is not prepared")
    assert (
        "in the checkout make wmt-venv, then .venv-wmt/bin/python -m tx.data.builders wmt14_translate/de-en"
        in read.stderr
    )
