"""The TFDS builder of this project's own corpora: pairs in, array_record files out, no TensorFlow."""

import contextlib
import io
import pathlib
from collections.abc import Callable, Sequence

import tensorflow_datasets as tfds

from tx.data import cache
from tx.data.textfiles import Pairs


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
    with cache.locked(folder):
        builder = ParallelText(source, target, version, read, data_dir=folder, file_format="array_record")
        prepare(builder, folder)
    return builder.as_data_source()


def prepare(builder: tfds.core.DatasetBuilder, folder: pathlib.Path) -> None:
    """Prepares a builder's data unless they are there (TFDS renames a finished folder into place)."""
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(force_checksums_validation=True)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself on the output meant for results
        builder.download_and_prepare(
            download_dir=folder / "downloads", download_config=config, file_format="array_record"
        )
