"""The one configuration of a run: the fields of tx/fields.py and those of the components chosen, and its checks.

Modules take their fields by name (`Transformer(**config.model)`); nothing else in the code has defaults of its own.
"""

import contextlib
import functools
import math
import numbers
import operator
import os
import re
from collections.abc import Collection

import ml_collections

from tx import components
from tx.errors import UserError, unknown
from tx.fields import FIELDS
from tx.files import expanded
from tx.renamed_fields import NEW_NAMES

_NESTED = (ml_collections.ConfigDict, dict)  # written out, it would be a new union for every value of every run
FOLDER = "files:"  # what data.corpus begins with where the text lies in a folder of the user's own: files:DIR


def get_config() -> ml_collections.ConfigDict:
    """Returns the paper's base model and training recipe, locked and typed."""
    config = ml_collections.ConfigDict()
    for name, field in FIELDS.items():
        _set_new(config, name, field.default)
    _hold_fields_of_components(config)
    return config.lock()


def _set_new(config, name, value):
    *path, leaf = name.split(".")
    for key in path:
        if key not in config:
            config[key] = ml_collections.ConfigDict()
        config = config[key]
    config[leaf] = value


def _hold_fields_of_components(config):
    """Adds the fields of the components that a configuration chooses, and drops those of others."""
    flat = fields(config)
    for choosing in components.choosing_fields():
        if choosing not in flat:
            continue
        wanted = components.fields_of(choosing, flat[choosing])
        for name in (components.every_field_of(choosing).keys() - wanted.keys()) & flat.keys():
            *path, leaf = name.split(".")
            node = functools.reduce(operator.getitem, path, config)
            del node[leaf]
            if len(path) > 1 and not node:
                del config[path[0]][path[1]]
        for name in wanted.keys() - flat.keys():
            _set_new(config, name, wanted[name].default)


def fields(config: ml_collections.ConfigDict | dict, prefix: str = "") -> dict[str, object]:
    """Returns {dotted name: value} of every leaf, e.g. {"model.d_model": 512, ...}; also of nested dicts."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, _NESTED):
            flat |= fields(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def is_of_tfds(corpus: str) -> bool:
    """Returns whether data.corpus names a set that TFDS defines."""
    return "/" in corpus and not corpus.startswith(FOLDER)


def says_where(name: str) -> bool:
    """Returns whether a field says where or how a run is computed, not what: it makes no other experiment."""
    where = ("data.dir", "train.steps_per_dispatch", "train.remat", "decode.batch_tokens")
    return name.startswith("parallel.") or name in where


def _what(name, value):
    """Returns a field's value without what only says where: which folder the user's own text lies in."""
    return FOLDER if name == "data.corpus" and str(value).startswith(FOLDER) else value


def differences(before: dict, after: dict, absent: str = "(absent)") -> dict[str, tuple[object, object]]:
    """Returns {dotted name: (value before, value after)} of the leaves in which two dicts, nested or not, differ.

    Fields that only say where a run is computed do not count, nor where its text lies: what that is, its fingerprint
    says (`tx.runs.identity`). A field that one of them lacks was added after it was
    written, with what was done until then as its default: there it has its default, or is `absent` if there is no such
    field any more.
    """
    before, after = fields(before), fields(after)
    unlike = {name for name, value in before.items() if name not in after or value != after[name]}
    unlike |= after.keys() - before.keys()
    if not unlike:  # as mostly: it is asked of every run of a sweep
        return {}
    default = {name: field.default for name, field in components.known_fields().items()}
    pairs = {
        name: tuple(one.get(name, default.get(name, absent)) for one in (before, after)) for name in sorted(unlike)
    }
    return {
        name: pair
        for name, pair in pairs.items()
        if _what(name, pair[0]) != _what(name, pair[1]) and not says_where(name)
    }


MOST_DIFFERENCES = 100  # there are fewer fields


def describe_differences(
    stored: dict,
    current: dict,
    wording: str = "{field} was {stored}, is now {current}",
    absent: str = "absent",
    apart: Collection[str] = (),
) -> list[str]:
    """Returns a phrase for each field in which a configuration that was stored differs from that of today.

    Of more than MOST_DIFFERENCES, as no run leaves them, the last says how many there are.

    Args:
      stored, current: both, nested or not; they are compared as `differences` does.
      wording: of a phrase, with the field and its two values.
      absent: what is said in place of a value where there is none.
      apart: dotted names of fields that do not count.
    """
    found = [pair for pair in differences(stored, current, absent).items() if pair[0] not in apart]
    shown = found[:MOST_DIFFERENCES]
    phrases = [wording.format(field=field, stored=old, current=new) for field, (old, new) in shown]
    return phrases + [f"and {len(found) - len(shown):,} more"] * (len(found) > len(shown))


def training_fields(config: ml_collections.ConfigDict | dict) -> dict[str, object]:
    """Returns the fields that the parameters of a trained model depend on: two runs with equal ones can share them.

    Where the text lies is among them, since no text is read here.
    """
    apart = ("name", "version")
    return {
        name: value
        for name, value in fields(config).items()
        if name not in apart and not name.startswith(("decode.", "probe.")) and not says_where(name)
    } | {name: value for name, value in fields(config).items() if name.startswith("parallel.") or name == "data.dir"}


def update(config: ml_collections.ConfigDict, diff: dict[str, object], where: str = "override") -> None:
    """Sets dotted fields in place, e.g. {"model.num_heads": 1}.

    First those that choose a component (optim.optimizer): with it come its fields, with their defaults, and those of
    the component that was chosen before go. Raises UserError for an unknown field (naming its new name or the nearest
    one), for one of a component that is not chosen, and for a value of another type, or one that no file or device can
    hold. Whole numbers are taken for float fields; the strings of a command line are parsed by the field's own type.
    """
    values = {name: parse(name, value, where) for name, value in diff.items()}
    if choices := values.keys() & set(components.choosing_fields()):
        for name in choices:
            _set(config, name, values.pop(name))
        with config.unlocked():
            _hold_fields_of_components(config)
    for name, value in values.items():
        if not _has(config, name):
            raise UserError(f"{where}: {describe_owner(config, name)}")
        _set(config, name, value)


def _has(config, name):
    """Whether a dotted name is one of a configuration's fields."""
    for key in name.split("."):
        if not isinstance(config, _NESTED) or key not in config:
            return False
        config = config[key]
    return not isinstance(config, _NESTED)


def _whole_path(corpus):
    """Returns data.corpus with a folder's whole path, since a run may be opened from elsewhere than it was started."""
    folder = corpus.removeprefix(FOLDER)
    return FOLDER + os.path.abspath(expanded(folder)) if folder and folder != corpus else corpus


def _set(config, name, value):
    *path, leaf = name.split(".")
    functools.reduce(operator.getitem, path, config)[leaf] = value


def parse(name: str, value: object, where: str = "override") -> bool | int | float | str:
    """Returns a value as a field that any run can have holds it; UserError as `update`."""
    known = components.known_fields()
    if name in NEW_NAMES:
        raise UserError(f"{where}: {name} is now called {NEW_NAMES[name]}; write that")
    if name not in known:
        more = "; one of a component of your own needs --import FILE.py" if name.count(".") > 1 else ""
        raise unknown(f"{where}: no configuration field", name, known, more)
    value = _whole_path(value) if name == "data.corpus" and isinstance(value, str) else value
    return _coerce(name, value, type(known[name].default), where)


def describe_owner(config: ml_collections.ConfigDict, name: str) -> str:
    """Returns whose a field is that is missing: "optim.lion.b1 belongs to optim.optimizer=lion; this run has adam"."""
    choosing, those = components.owners(name)
    return f"{name} belongs to {choosing}={' or '.join(those)}; this run has {fields(config)[choosing] or 'none'}"


def _coerce(name, value, kind, where):
    try:
        if isinstance(value, str) and kind is not str:
            if kind is bool:
                return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
            value = _parsed(value.replace("_", ""), kind)
        if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
            value = int(value)
        if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
            value = float(value)
        if type(value) is kind and _can_be_held(value):
            return value
    except (KeyError, ValueError, OverflowError):
        pass
    raise UserError(f"{where}: {name} takes {_KIND[kind]}, got {_shown(value)}")


def _parsed(text, kind):
    """Returns the number that a text says; for a whole one "1e3" will do, and "1.5" not."""
    with contextlib.suppress(ValueError):
        return kind(text)
    if (value := float(text)).is_integer():
        return int(value)
    raise ValueError(text)


def _can_be_held(value):
    """Whether a JSON file, and a counter or a seed on a device, can hold it."""
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff]", value)  # they stand for bytes of a command line that are not UTF-8
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**31


def _shown(value):
    try:
        return " ".join(repr(value).splitlines())
    except ValueError:
        return "one with more digits than can be printed"


_KIND = {int: "a whole number below 2^31", float: "a finite number", bool: "true or false", str: "a string of UTF-8"}


def validate(config: ml_collections.ConfigDict) -> None:
    """Raises UserError, one line, for the first value that no run can have."""
    _check_each(config)
    _check_model(config)
    _check_data_and_training(config)


def _check_each(config):
    known = components.known_fields()
    for name, value in fields(config).items():
        known[name].check(name, value)
    for choosing in components.choosing_fields():
        if (name := fields(config).get(choosing)) is not None:
            components.check_name(choosing, name)


def _check_model(config):
    # Of components of one's own these are known where they are computed (tx/model/positions.py, mixers.py).
    if config.model.d_model % 2 and config.model.positions == "sinusoidal":
        raise UserError(f"model.d_model must be even for sinusoidal positions; got {config.model.d_model}")
    if config.model.d_model % 2 and config.model.mixer == "recurrent":
        raise UserError(f"model.d_model must be even for recurrence in both directions; got {config.model.d_model}")
    if config.model.d_k % 2 and config.model.positions == "rotary":
        raise UserError(f"model.d_k must be even for rotary positions; got {config.model.d_k}")
    if config.model.num_heads % (config.model.num_kv_heads or 1):
        raise UserError(
            f"model.num_kv_heads={config.model.num_kv_heads} does not divide model.num_heads={config.model.num_heads}; "
            "choose a divisor, or 0 for as many"
        )
    if config.model.attention_backend == "cudnn":
        _refuse_what_cudnn_lacks(config.model, config.data.row_length)
    if config.model.architecture == "decoder_only":
        _refuse_what_one_stack_lacks(config.model)


def _check_data_and_training(config):
    if config.data.max_length_quantile > 1:
        raise UserError(f"data.max_length_quantile is a share, at most 1; got {config.data.max_length_quantile}")
    if config.data.corpus == FOLDER:
        raise UserError(f"data.corpus={FOLDER} names no folder; write {FOLDER}DIR")
    if config.data.source == config.data.target:
        raise UserError(f"data.source and data.target are both {config.data.source!r}")
    if config.decode.average_last > config.train.keep_checkpoints:
        raise UserError(
            f"decode.average_last={config.decode.average_last} needs as many checkpoints; "
            f"train.keep_checkpoints is {config.train.keep_checkpoints}"
        )
    if config.train.select == "best" and config.train.eval_every % config.train.checkpoint_every:
        raise UserError(
            f"train.select=best needs a checkpoint at every evaluation, but train.eval_every={config.train.eval_every} "
            f"is no multiple of train.checkpoint_every={config.train.checkpoint_every}; set that too, or "
            "train.select=last"
        )
    for name in ("steps", "log_every", "eval_every", "checkpoint_every"):
        if config.train[name] % config.train.steps_per_dispatch:
            raise UserError(
                f"train.{name}={config.train[name]} is no multiple of "
                f"train.steps_per_dispatch={config.train.steps_per_dispatch}"
            )
    if config.data.batch_rows % config.train.micro_batches:
        raise UserError(
            f"data.batch_rows={config.data.batch_rows} cannot be cut into train.micro_batches="
            f"{config.train.micro_batches} equal parts"
        )
    if config.parallel.fsdp_shards > 1 and config.parallel.mode == "pmap":
        shards = config.parallel.fsdp_shards
        raise UserError(f"parallel.fsdp_shards={shards} needs parallel.mode=jit; pmap cuts nothing")


def _refuse_what_one_stack_lacks(model):
    if model.decoder_layers:
        raise UserError(
            f"model.decoder_layers={model.decoder_layers} is of an encoder and a decoder; model.architecture="
            "decoder_only has one stack, of model.num_layers: set model.decoder_layers=0"
        )
    if model.mixer != "attention":  # no other sees the whole of the source and nothing later of the target
        raise UserError(
            f"model.architecture=decoder_only needs model.mixer=attention; got {model.mixer!r}. Set that, or "
            "model.architecture=encoder_decoder"
        )


def _refuse_what_cudnn_lacks(model, row_length):
    needed = {
        "model.dtype=bfloat16": model.dtype == "bfloat16",
        "model.attention_dropout=0": model.attention_dropout == 0,
        "model.d_k = model.d_v": model.d_k == model.d_v,
        "model.similarity=scaled": model.similarity == "scaled",
        "model.num_kv_heads=0": model.num_kv_heads == 0,
        # Those of one's own are known where components are (tx/training/checks.py).
        "positions that add nothing to the logits": model.positions not in ("relative", "t5", "alibi"),
        "model.d_k a multiple of 8, at most 128": model.d_k % 8 == 0 and model.d_k <= 128,
        # With rows of 64, some of them empty, the gradients of the first step were not finite on an H100.
        "data.row_length a multiple of 128": row_length % 128 == 0,
    }
    if lacking := [what for what, there in needed.items() if not there]:
        needs = "; ".join(lacking)
        raise UserError(f"model.attention_backend=cudnn needs {needs}; or set model.attention_backend=xla")
