"""TFDS, through which all data come: a builder of our own for pairs at hand, and the sets that TFDS itself defines.

Both are array_record files, read at random without TensorFlow. `python -m tx.data.builders NAME` prepares one
of TFDS's own where TensorFlow is installed.
"""

import contextlib
import errno
import importlib.util
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from tx import files
from tx.cli import Parser
from tx.data import cache, tfds_folders
from tx.data.text_files import Pairs
from tx.errors import UserError, one_line_errors, writing


class ParallelText(tfds.core.GeneratorBasedBuilder):
    """Sentence pairs as a TFDS translation set whose records keep the order they were given in.

    Args:
      source, target: language codes, the keys of each record (UTF-8 bytes).
      version: "MAJOR.MINOR.PATCH"; carries a fingerprint of the text, so that changed text is prepared anew.
      read: called, only when preparation is needed, for the pairs of every split.
      **kwargs: as for any TFDS builder.
    """

    def __init__(self, source: str, target: str, version: str, read: Callable[[], Pairs], **kwargs):
        self.source, self.target, self.read = source, target, read
        self.VERSION = tfds.core.Version(version)
        super().__init__(**kwargs)

    def _info(self):
        features = tfds.features.Translation((self.source, self.target))
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        del dl_manager  # the text is already here, checked
        return {split: self._generate_examples(pairs) for split, pairs in self.read().items()}

    def _generate_examples(self, pairs):
        for i, (source, target) in enumerate(pairs):
            yield i, {self.source: source, self.target: target}


def data_sources(
    name: str, source: str, target: str, fingerprint: str, read: Callable[[], Pairs]
) -> dict[str, Sequence]:
    """Returns the random-access splits of a corpus, prepared in the cache where they are not there yet.

    Args: as for `ParallelText`; the version is made from `fingerprint`, a hex digest of the text.
    """
    version = f"1.0.{int(fingerprint[:12], 16)}"
    folder = cache.root() / "tfds" / f"{name}.{source}-{target}"
    made, whose = folder / ParallelText.name / version, f"{folder.name}/{fingerprint}"
    if files.find_corruption(made, key=whose):  # what is whole may lie where nothing can be written, a lock neither
        with cache.locked(folder):
            if files.find_corruption(made, key=whose):  # nobody has prepared it while we waited
                shutil.rmtree(made, ignore_errors=True)
                with _temporary_files_deleted():
                    new = ParallelText(source, target, version, read, data_dir=folder, file_format="array_record")
                prepare(new, folder, whose)
    return ParallelText(source, target, version, read, data_dir=folder, file_format="array_record").as_data_source()


def prepare(builder: tfds.core.DatasetBuilder, folder: pathlib.Path, key: str = "") -> None:
    """Prepares a builder's data and writes their checksums (TFDS renames a finished folder into place).

    Whoever calls it holds the lock of `folder`: what killed processes have left there is deleted.

    Args:
      builder: of the data.
      folder: what is downloaded goes to "downloads" in it.
      key: as `tx.files.write_checksums` takes it.
    """
    for left in pathlib.Path(builder.data_dir).parent.glob("incomplete.*"):  # TFDS's name for it
        shutil.rmtree(left, ignore_errors=True)
    tfds.disable_progress_bar()
    with writing(folder):
        try:
            _prepare(builder, folder, key)
        except RuntimeError as error:  # array_record's writer says what the disk has said, in the system's words
            said = next((code for code in errno.errorcode if os.strerror(code) in str(error)), None)
            if said is None:
                raise
            raise OSError(said, os.strerror(said)) from error


def _prepare(builder, folder, key):
    config = tfds.download.DownloadConfig(force_checksums_validation=True)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself on the output meant for results
        builder.download_and_prepare(
            download_dir=folder / "downloads", download_config=config, file_format="array_record"
        )
    files.write_checksums(pathlib.Path(builder.data_dir), key=key)


@contextlib.contextmanager
def _temporary_files_deleted():
    """Deletes what the body makes in the temporary folder: a builder of a new set leaves an empty folder there."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def tfds_set(name: str, folder: str, log: Callable[[str], None] = print) -> tfds.core.DatasetBuilder:
    """Opens a set that TFDS defines, preparing it where TensorFlow is installed.

    Args:
      name: as in TFDS's catalogue, with the config: "wmt14_translate/de-en"; with ":1.0.0" or "/1.0.0" of that version,
        else of the newest that is there.
      folder: looked in first (may be empty), then $TX_DATA_DIR, the cache, and TFDS's own default folder.
      log: told when a preparation begins, which may take hours.
    """
    home, roots = tfds_folders.home(), tfds_folders.roots(folder)
    path, version = tfds_folders.parse(name)
    for root in roots:
        if builder := _newest(root, name):
            return builder
    if importlib.util.find_spec("tensorflow") is None:
        others = sorted({ready for root in roots for ready in tfds_folders.versions(root, name)})
        there = f" (there is {', '.join(others)})" if others else ""
        raise UserError(
            f"{name} is not prepared as array_record in {', '.join(map(str, roots))}{there}, and preparing it needs "
            f"TensorFlow: in the checkout make wmt-venv, then .venv-wmt/bin/python -m tx.data.builders {name}"
        )
    try:
        with cache.locked(home / path.replace("/", ".")):
            log(f"preparing {name} in {home} (once)")
            with _temporary_files_deleted():
                wanted = f"{path}:{version}" if version else path
                new = tfds.builder(wanted, data_dir=home, file_format="array_record")
            prepare(new, home)
    except tfds.core.DatasetNotFoundError:
        raise UserError(f"TFDS has no set {name!r}; its catalogue is tfds.list_builders()") from None
    except (OSError, ValueError, AssertionError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        raise UserError(f"{name} could not be prepared: {' '.join(str(error).split())}") from None
    return _newest(home, name)


def _newest(root, name):
    """Opens the array_record version that a name asks for, else the newest, from its files alone; None for none."""
    newest = tfds_folders.newest(root, name)
    if (
        newest and (newest / files.NAME).exists() and (found := files.find_corruption(newest))
    ):  # others' have no checksums
        raise UserError(f"{newest} is damaged ({found}); delete it and prepare the set again")
    return tfds.builder_from_directory(newest) if newest else None


@one_line_errors
def main(arguments: list[str] | None = None) -> None:
    """Prepares a translation set of TFDS's own, as array_record, and prints where it is."""
    parser = Parser(prog="python -m tx.data.builders", description=main.__doc__)
    parser.add_argument("name", help="a translation set of TFDS, for instance wmt14_translate/de-en")
    parser.add_argument("--dir", default="", help="folder to look in first")
    options = parser.parse_args(arguments)
    builder = tfds_set(options.name, options.dir)
    print(builder.data_dir, *(f"{name}={split.num_examples}" for name, split in builder.info.splits.items()))


if __name__ == "__main__":
    main()
