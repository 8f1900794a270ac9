"""Old names of configuration fields: files of runs that were made under them are read under the new ones."""

NEW_NAMES = {  # of a dotted field, within its section; the meaning stayed, so that config.version does too
    "data.shortest": "data.max_length_quantile",
    "decode.asks": "decode.task",
    "model.attention": "model.attention_backend",
    "optim.ramp": "optim.linear_warmup",
    "parallel.shards": "parallel.fsdp_shards",
}


def names_of(field: str) -> list[str]:
    """Returns the names of a dotted field, the one that it has now first: folders of runs may be called by any."""
    return [field, *(old for old, new in NEW_NAMES.items() if new == field)]


def with_new_names(config: dict) -> dict:
    """Returns a configuration as a file holds it, nested dicts, with every field under the name that it has now.

    A field that is there under both names stays so. The dicts given are left as they are.
    """
    renamed = dict(config)
    for old, new in NEW_NAMES.items():
        (section, old_leaf), (_, new_leaf) = old.split("."), new.split(".")
        fields = renamed.get(section)
        if isinstance(fields, dict) and old_leaf in fields and new_leaf not in fields:
            renamed[section] = {new_leaf if leaf == old_leaf else leaf: value for leaf, value in fields.items()}
    return renamed


def file_with_new_names(value: dict) -> dict:
    """Returns the contents of a config.json or result.json, with the fields of its "config" under today's names.

    A result has the configuration's "decode" beside it, too, for which the same holds.
    """
    renamed = with_new_names(value)
    if isinstance(renamed.get("config"), dict):
        renamed["config"] = with_new_names(renamed["config"])
    return renamed
