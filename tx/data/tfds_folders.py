"""Folders of TFDS's own sets on disk, found and identified without TFDS, which is slow to import."""

import contextlib
import os
import pathlib
import re

from tx.data import cache
from tx.errors import UserError
from tx.files import expanded, from_json, read_text

INFO = "dataset_info.json"  # states name, version, records and bytes of every shard
# Of a set, a config or a split: a part of a path that leads nowhere else.
NAME = re.compile(r"\w[\w.:+-]*")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_PINNED = re.compile(rf"(.+?)[:/]({_VERSION.pattern})")  # as TFDS writes it, and as its folders are called


def home() -> pathlib.Path:
    """Returns the folder of the sets that are prepared here."""
    return cache.root() / "tfds"


def roots(folder: str) -> list[pathlib.Path]:
    """Returns where sets are looked for, in turn: `folder` (may be empty), $TX_DATA_DIR, the cache, TFDS's default."""
    found = [expanded(r) for r in (folder, os.environ.get("TX_DATA_DIR"), home()) if r]
    with contextlib.suppress(UserError):  # who has no home folder has none of TFDS's there
        found.append(expanded(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))
    return found


def parse(name: str) -> tuple[str, str]:
    """Returns (path, version) of a set's name: "SET/CONFIG:1.0.0" or "SET/CONFIG/1.0.0"; version "" where it has none.

    Raises UserError for what is no name.
    """
    pinned = _PINNED.fullmatch(name)
    path, version = pinned.groups() if pinned else (name, "")
    if not all(map(NAME.fullmatch, path.split("/"))):
        raise UserError(
            f"{name!r} is no name of a TFDS set; write SET or SET/CONFIG, perhaps with a version, e.g. "
            "wmt14_translate/de-en or wmt14_translate/de-en:1.0.0"
        )
    return path, version


def versions(root: pathlib.Path, name: str) -> list[str]:
    """Returns the versions of a set that are prepared as array_record, whichever its name asks for; the newest last.

    Raises UserError as `newest`.
    """
    found = _described(root / parse(name)[0])
    return [folder.name for folder in sorted(found, key=_number)]


def newest(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """Returns the folder of the version that a name asks for, else of the newest; None where there is none.

    Only what is prepared as array_record counts. Raises UserError for what is no name, and where a description is
    damaged, or is that of another set.
    """
    path, version = parse(name)
    found = {folder: info for folder, info in _described(root / path).items() if version in ("", folder.name)}
    folder = max(found, key=_number, default=None)
    if folder is not None:
        _refuse_other(folder, found[folder], path)
    return folder


def _described(folder):
    """Returns {folder: its description} of the array_record versions in a folder."""
    infos = [path for path in folder.glob(f"*/{INFO}") if _VERSION.fullmatch(path.parent.name)]
    return {path.parent: info for path in infos if (info := _read(path)).get("fileFormat") == "array_record"}


def _number(folder):
    return tuple(map(int, folder.name.split(".")))


def fingerprint(folder: pathlib.Path, source: str, target: str) -> str:
    """Returns the digest of a version's text in two languages, as its description states it."""
    return cache.fingerprint(read_text(folder / INFO), source, target)


def _read(path):
    try:
        if isinstance(info := from_json(read_text(path)), dict):
            return info
    except (OSError, ValueError):
        pass
    raise UserError(f"{path} is damaged; delete {path.parent} and prepare the set again")


def _refuse_other(folder, info, name):
    """Raises UserError where a set lies where another, or another version, is looked for: as a copy does."""
    said = [str(info[key]) for key in ("name", "configName") if info.get(key)]
    asked = name.split("/")
    if said != asked[-len(said) :] or info.get("version", folder.name) != folder.name:
        raise UserError(
            f"{folder} holds {'/'.join(said)} {info.get('version')}, not {name} {folder.name}; "
            "delete it and prepare the set again"
        )
