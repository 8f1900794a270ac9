"""Runs that are done, beside the text that their data is read from today."""

import dataclasses
from collections.abc import Sequence

from launch.plan import PlannedRun
from tx.config import is_of_tfds
from tx.data import tfds_folders
from tx.errors import UserError
from tx.files import to_json
from tx.runs.state import RunState


def with_text(runs: Sequence[PlannedRun], known: dict[str, str] | None = None) -> list[PlannedRun]:
    """Returns the runs, those of them stale that are done on other sentences than their text has today.

    Text is looked at that lies in a folder of the user's, or that TFDS has prepared, which its description stands for:
    what is generated or fetched changes with the code alone. Where it is not there, or cannot be read, nothing is said
    of it; nothing is fetched or prepared.

    Args:
      runs: any.
      known: what is found out of text, for the next call: it is read once.
    """
    known, found, texts = {} if known is None else known, [], {}
    for run in runs:
        if run.state.name == "done":
            data = run.config.data
            if id(data) not in texts:  # the seeds of a row have one section
                key = to_json(data.to_dict())
                if key not in known:
                    known[key] = _fingerprint(data)
                texts[id(data)] = known[key]
            now = texts[id(data)]
            if now and (made := _made_of(run)) != now:
                why = f"the text of {data.corpus} is another: its fingerprint was {made}, is now {now}"
                run = dataclasses.replace(run, state=RunState("stale", why, True, numerics=run.state.numerics))
        found.append(run)
    return found


def _fingerprint(data):
    """Returns the fingerprint of a corpus as it lies here; "" where it does not, or is not looked at."""
    try:
        if is_of_tfds(data.corpus):
            return _of_prepared(data)
        return _of_text(data)
    except (UserError, OSError):
        return ""


def _of_prepared(data):
    found = (tfds_folders.newest(root, data.corpus) for root in tfds_folders.roots(data.dir))
    folder = next(filter(None, found), None)
    if not folder:
        return ""
    from tx.data import corpora  # slow to import

    fingerprint = tfds_folders.fingerprint(folder, data.source, data.target)
    return corpora.in_lower_case(fingerprint) if data.lowercase else fingerprint


def _of_text(data):
    from tx.data import corpora  # slow to import, and needed for text alone

    return corpora.load(data).fingerprint if corpora.is_in_folder(data) else ""


def _made_of(run):
    data = run.folder.read("result").get("data")
    return str(data.get("fingerprint")) if isinstance(data, dict) else ""
