"""Downloads of files, each checked against its size and SHA-256 before it is put in its place."""

import hashlib
import http.client
import os
import pathlib
import urllib.request

from tx.data import cache
from tx.errors import writing


class Failed(Exception):
    """Error of a download that failed or is not what it should be; the message says why, on one line."""


def fetch(files: dict[str, tuple[str, int, str]], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Downloads {name: (url, bytes, sha256)} to FOLDER/name.gz; returns {name: path}.

    (TFDS's own download manager tries for minutes before it admits that there is no network.)

    Raises:
      Failed: no network, no such file, or another size or checksum. Then no file is left in the folder.
    """
    paths = {name: folder / f"{name}.gz" for name in files}
    with cache.locked(folder), writing(folder), cache.temporary_folder(folder) as temporary:
        missing = [name for name, path in paths.items() if not path.is_file()]  # nobody fetched it meanwhile
        for name in missing:
            url, size, sha256 = files[name]
            try:
                with urllib.request.urlopen(url, timeout=30) as response:
                    data = response.read(size + 1)  # of what has no end too
            except (OSError, http.client.HTTPException) as error:
                raise Failed(f"{url}: {error}") from None
            if (len(data), hashlib.sha256(data).hexdigest()) != (size, sha256):
                raise Failed(f"{url} does not have the checksum {sha256}")
            (temporary / name).write_bytes(data)
        folder.mkdir(exist_ok=True)
        for name in missing:
            os.replace(temporary / name, paths[name])
    return paths
