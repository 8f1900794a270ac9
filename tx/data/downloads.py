"""Downloads through TFDS's download manager, every file against its SHA-256."""

import os
import pathlib

from tx.data import cache


class Failed(Exception):
    """A download that could not be had or is not what it should be; the message says why, on one line."""


def fetch(files: dict[str, tuple[str, int, str]], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Downloads {name: (url, bytes, sha256)} to FOLDER/name.gz; returns {name: path}.

    Raises:
      Failed: no network, no such file, or another size or checksum. Then no file is left in the folder.
    """
    import tensorflow_datasets as tfds  # slow to import, and needed only here
    from tensorflow_datasets.core.download import checksums, download_manager

    infos = {url: checksums.UrlInfo(size, sha256, None) for url, size, sha256 in files.values()}
    paths = {name: folder / f"{name}.gz" for name in files}
    with cache.locked(folder), cache.temporary_folder(folder.parent) as temporary:
        missing = {name: url for name, (url, _, _) in files.items() if not paths[name].is_file()}
        tfds.disable_progress_bar()
        manager = tfds.download.DownloadManager(
            download_dir=temporary, url_infos=infos, force_checksums_validation=True
        )
        try:
            fetched = manager.download(missing)
        except (OSError, tfds.download.DownloadError, download_manager.NonMatchingChecksumError) as error:
            raise Failed(" ".join(str(error).split())) from None
        folder.mkdir(exist_ok=True)
        for name, path in fetched.items():
            os.replace(path, paths[name])
    return paths
