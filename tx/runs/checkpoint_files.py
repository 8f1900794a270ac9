"""Files of a checkpoint as orbax leaves them: whether they are whole, and what they say; orbax is not needed."""

import pathlib
import sys

from tx import files
from tx.errors import printable, writing
from tx.runs.run_dir import is_step

# What orbax writes after the checksums; it restores the same whatever they hold.
METADATA = "_CHECKPOINT_METADATA"
APART = (METADATA, "commit_success.txt")
_METADATA_KINDS = {"item_handlers": dict, "metrics": dict, "performance_metrics": dict, "custom_metadata": dict}
_METADATA_KINDS |= {"init_timestamp_nsecs": int, "commit_timestamp_nsecs": int}
ALWAYS = ("params", "opt_state", "data", "progress")  # items that every checkpoint has


def find_corruption(folder: pathlib.Path) -> str:
    """Returns what is not as it was saved in the folder of a checkpoint, in a few words; "" where nothing is."""
    missing = [item for item in ALWAYS if not (folder / item).is_dir()]
    found = files.find_corruption(folder, apart=APART)
    if not found and missing:
        found = f"it has no {missing[0]}: other code wrote it"
    return found or describe_step(read_progress(folder), int(folder.name))


def read_progress(folder: pathlib.Path) -> dict:
    """Returns the progress that a checkpoint holds, unchecked; {} where that cannot be read."""
    try:
        found = files.from_json(files.read_text(folder / "progress" / "metadata"))  # of orbax's JsonSave
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def describe_step(progress: dict, step: int) -> str:
    """Returns what is wrong where a checkpoint is not called by the step that it was saved at; else ""."""
    found = progress.get("step", step)
    return "" if found == step else f"was saved at step {found}"


def renew_damaged_metadata(folder):
    """Sets aside what orbax would fail to read of its own about a checkpoint, or never end to; it does without."""
    for path in sorted(folder.glob(f"*/{METADATA}")):
        if not is_step(path.parent.name) or _is_metadata(path):
            continue
        aside = folder.parent / "damaged" / f"{path.parent.name}.{METADATA}"
        with writing(aside):
            aside = files.numbered(aside)
            path.rename(aside)
            files.write_atomically(path, "{}")
        print(printable(f"warning: {path} is damaged; set aside as {aside}"), file=sys.stderr, flush=True)


def _is_metadata(path):
    try:
        found = files.from_json(files.read_text(path))
    except FileNotFoundError:  # deleted by the process that trains
        return True
    except (OSError, ValueError):
        return False
    if not isinstance(found, dict) or found.get("performance_metrics"):  # of those orbax has written none
        return False
    sound = all(isinstance(found.get(name), kind | None) for name, kind in _METADATA_KINDS.items())
    return sound and all(isinstance(handler, str) for handler in (found.get("item_handlers") or {}).values())
