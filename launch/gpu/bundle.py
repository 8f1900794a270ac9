"""Puts into one folder what a machine without network lacks to run sweeps: wheels and text.

    python -m launch.gpu.bundle [--folder=gpu-bundle] [--python=3.12] [--sweep=SWEEP@SCALE:SEEDS ...]

What that machine has itself is JAX for its GPU, Flax, Optax, Orbax, sacreBLEU, sentencepiece, TensorBoard, Matplotlib,
pandas, pyarrow and what these need. `python -m launch.gpu` there uses the folder.
"""

import contextlib
import gzip
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable

from experiments import registry
from launch.gpu.session import BUNDLE, SWEEPS
from tx import cli, plugins
from tx.data import text_files
from tx.errors import UserError, one_line_errors

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 24 << 20  # bytes of the whole folder
PARTS = ("wheels", "text")  # of it
# What training, translating, scoring and reporting import, and what of it is not found beside JAX: TFDS with the part
# of its needs that reading array_record files takes, in the versions that constraints.txt names.
WHEELS = (
    *("tensorflow-datasets", "array-record", "dm-tree", "immutabledict", "promise", "protobuf", "termcolor", "toml"),
    *("tensorflow-metadata", "importlib-resources", "ml-collections", "jaxtyping", "wadler-lindig", "sacremoses"),
)
SOURCES = ("promise",)  # of them, those published as source alone, without compiled parts
# pip takes each by its exact name; glibc 2.17 is the oldest that wheels name, 2.39 that of the newest long-term Linux.
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(39, 16, -1)), "manylinux2014_x86_64")


def put_wheels(folder: pathlib.Path, python: str) -> None:
    """Downloads WHEELS for a version of Python ("3.12") on x86-64 Linux; UserError where pip cannot."""
    pip, fixed = [sys.executable, "-m", "pip"], ["--no-deps", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    target = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    target += [f"--platform={platform}" for platform in PLATFORMS]
    binary = [name for name in WHEELS if name not in SOURCES]
    for command in (
        [*pip, "download", *fixed, *target, "--dest", str(folder), *binary],
        [*pip, "wheel", *fixed, "--wheel-dir", str(folder), *SOURCES],
    ):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
            raise UserError(f"pip {command[3]} failed: {said}")


def put_text(name: str, source: str, target: str, folder: pathlib.Path) -> None:
    """Writes a corpus of text files as compressed files that `tx.data.text_files` reads the same sentences from.

    Raises UserError for a corpus that is made otherwise, and where its text is not found.
    """
    if name not in text_files.CORPORA:
        raise UserError(f"corpus {name!r} cannot be bundled; those of text files can: {', '.join(text_files.CORPORA)}")
    pairs, corpus = text_files.read(name, source, target, ""), text_files.CORPORA[name]
    pair = next(pair for pair in corpus.pairs if sorted(pair.split("-")) == sorted((source, target)))
    (folder / name).mkdir(parents=True, exist_ok=True)
    for split, stem in corpus.splits.items():
        # What is cut by a hash of each sentence is cut alike again, whatever the order of the parts.
        parts = list(pairs) if corpus.split_by else [split]
        for side, language in enumerate((source, target)):
            text = "".join(f"{one[side]}\n" for part in parts for one in pairs[part]).encode()
            path = folder / name / f"{stem.format(pair=pair)}.{language}.gz"
            path.write_bytes(gzip.compress(text, 9, mtime=0))
    if text_files.read(name, source, target, str(folder)) != pairs:
        raise UserError(f"{name} cannot be bundled: written and read again its sentences differ")


def bundle(folder: pathlib.Path, python: str, scales: Iterable[str]) -> dict[str, int]:
    """Makes the folder anew, whole or not at all; returns {"wheels", "text": bytes}.

    Raises UserError where it would be larger than LIMIT, and where the folder holds anything but a bundle.
    """
    folder = folder.resolve()  # a link stays, and "." has a name
    _refuse_other(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder.parent}: {error.strerror}; give another --folder") from None
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = pathlib.Path(temporary) / folder.name
        for part in PARTS:
            (made / part).mkdir(parents=True)
        for corpus, source, target in dict.fromkeys(map(_corpus, scales)):
            put_text(corpus, source, target, made / "text")
        put_wheels(made / "wheels", python)
        sizes = {part: sum(path.stat().st_size for path in (made / part).rglob("*")) for part in PARTS}
        if sum(sizes.values()) > LIMIT:
            raise UserError(f"the bundle has {_mib(sizes)}: more than {LIMIT >> 20} MiB; bundle fewer sweeps")
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        made.rename(folder)
    return sizes


def _refuse_other(folder):
    """Raises UserError where what is to be made anew was never a bundle: it would be deleted."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder; give another --folder")
    if others := sorted(path.name for path in folder.glob("*") if path.name not in PARTS):
        raise UserError(f"{folder} holds {others[0]}, of no bundle, which would be deleted; give another --folder")


def _corpus(sweep):
    settings = registry.parse_sweep(sweep)[1].settings()
    return settings["data.corpus"], settings["data.source"], settings["data.target"]


def _mib(sizes):
    return " and ".join(f"{size / 2**20:.1f} MiB of {part}" for part, size in sizes.items())


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(prog="python -m launch.gpu.bundle", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=cli.path, default=BUNDLE, help="default: %(default)s")
    parser.add_argument("--python", default="3.12", help="that machine's version (default: %(default)s)")
    parser.add_argument("--sweep", action="append", metavar="SWEEP@SCALE:SEEDS", help=f"default: {' '.join(SWEEPS)}")
    args = parser.parse_args(plugins.take(list(sys.argv[1:] if argv is None else argv)))
    sizes = bundle(args.folder, args.python, [sweep.partition(":")[0] for sweep in args.sweep or SWEEPS])
    print(f"{args.folder}: {_mib(sizes)}, of at most {LIMIT >> 20} MiB")


if __name__ == "__main__":
    main()
