"""The one configuration of a run: every field, its default (the paper's base), its symbol, and its checks.

Modules take their fields by name (`Transformer(**config.model)`); nothing else in the code has defaults of its own.
Section and table numbers are those of "Attention Is All You Need" (arXiv 1706.03762); "June 2017 code" is
tensor2tensor at its first public commit.
"""

import contextlib
import math
import numbers
import os
import re
from collections.abc import Collection

import ml_collections

from tx.errors import UserError, unknown
from tx.renamed_fields import NEW_NAMES

FOLDER = "files:"  # what data.corpus begins with where the text lies in a folder of the user's own: files:DIR


def get_config() -> ml_collections.ConfigDict:
    """Returns the paper's base model and training recipe, locked and typed."""
    c = ml_collections.ConfigDict()
    c.version = 1  # raised when a field changes its meaning; recorded with every run
    c.name = "base"  # SWEEP/VARIANT@SCALE, for messages and result files

    c.model = ml_collections.ConfigDict()
    c.model.vocab_size = 40_960  # V: shared subwords; the June 2017 code's number (the text says "about 37000")
    c.model.architecture = "encoder_decoder"  # or decoder_only: one stack over source and target (prefix attention)
    c.model.num_layers = 6  # N: layers in the encoder, and again in the decoder; or of the one stack
    c.model.decoder_layers = 0  # layers in the decoder; 0: as many as in the encoder
    c.model.d_model = 512  # d_model
    c.model.d_ff = 2048  # d_ff
    c.model.num_heads = 8  # h
    c.model.d_k = 64  # d_k: width of one head's queries and keys, independent of h and d_model
    c.model.d_v = 64  # d_v: width of one head's values
    c.model.num_kv_heads = 0  # heads of keys and values, each shared by a group of the h; 0: as many as h
    c.model.similarity = "scaled"  # of a query and a key (section 3.2.1): scaled, unscaled, cosine, additive
    c.model.mixer = "attention"  # of a sentence's positions (Table 1); or local, recurrent, convolution, dilated
    c.model.neighbourhood = 16  # r: how far mixer "local" reaches to each side
    c.model.kernel_width = 3  # k: taps of a convolution
    c.model.feed_forward = "relu"  # of a layer (section 3.3): relu, gelu, swiglu, none
    c.model.dropout = 0.1  # P_drop: on each sub-layer's output, and on embedding + position (section 5.4)
    c.model.attention_dropout = 0.0  # on attention weights; 0 in the paper, 0.1 in later tensor2tensor presets
    c.model.relu_dropout = 0.0  # after the ReLU; likewise
    c.model.drop_residual = True  # whether P_drop acts on each sub-layer's output
    c.model.drop_embedding = True  # whether it acts on embedding + position
    c.model.positions = "sinusoidal"  # sinusoidal, learned, none, relative, t5, alibi, rotary (tx/model/positions.py)
    c.model.sinusoid_layout = "concatenated"  # all sines, then all cosines (code); or interleaved (section 3.5)
    c.model.sinusoid_endpoint = True  # slowest frequency exactly 1/10000 (code), or one step short of it (text)
    c.model.scale_positions = True  # multiply the learned position table by sqrt(d_model), as the code does
    c.model.max_positions = 512  # rows of the learned position table; a longer sentence is refused
    c.model.max_offset = 16  # relative positions: offsets from here on share a vector
    c.model.norm = "post"  # Norm(x + Sublayer(x)) (section 3.1); or pre: x + Sublayer(Norm(x)); or none
    c.model.normalization = "layer"  # what Norm is: layer, rms
    c.model.residual = True  # whether x is added to what a sub-layer makes of it
    c.model.projection_bias = True  # biases on the attention projections (code; the text's formulas have none)
    c.model.target_spaces = 32  # rows of the target-space table added to the encoder input (code); 0: no table
    c.model.tying = "three"  # source embedding, target embedding and softmax share a matrix (section 3.4); two, none
    c.model.scale_embedding = True  # multiply embeddings by sqrt(d_model) (section 3.4)
    c.model.attention_backend = "xla"  # what trains it; or cudnn: one fused kernel, on NVIDIA GPUs in bfloat16
    c.model.dtype = "float32"  # of the arithmetic; parameters, softmax, layer norm and loss stay float32

    c.loss = ml_collections.ConfigDict()
    c.loss.label_smoothing = 0.1  # eps_ls (section 5.4)
    c.loss.smooth_over = "others"  # eps spread over the V-1 other classes (code), or over "all" V (Szegedy et al.)

    c.optim = ml_collections.ConfigDict()
    c.optim.warmup_steps = 4000  # warmup_steps of equation 3
    c.optim.lr_factor = 1.0  # multiplies equation 3
    c.optim.schedule = "inverse_sqrt"  # after the warm-up (equation 3); or constant, cosine
    c.optim.linear_warmup = True  # the rate rises from 0 while it warms up; else it starts where that leads to
    c.optim.scale_by_width = True  # times d_model^-0.5; else times 512^-0.5, whatever d_model is
    c.optim.beta1 = 0.9
    c.optim.beta2 = 0.98
    c.optim.epsilon = 1e-9

    c.data = ml_collections.ConfigDict()
    c.data.corpus = "wmt14_translate/de-en"  # a set of TFDS; numbers, recall, multi30k, tatoeba; or own text, files:DIR
    c.data.source = "en"
    c.data.target = "de"
    c.data.dir = ""  # folder with the text, looked in first; then $TX_DATA_DIR; then the cache
    c.data.tokenizer = "bpe"  # what cuts sentences into subwords (byte pairs, section 5.1); or unigram, char, word
    c.data.vocab = "exact"  # V subwords, no other number; or fit: as many as the training text allows, at most V
    c.data.row_length = 256  # tokens of a packed row, on each side: no training sentence may be longer
    c.data.batch_rows = 96  # rows of a batch: 96 x 256 is "approximately 25000" tokens a side (section 5.1)
    c.data.max_length_quantile = 1.0  # of the training sentences' lengths: what is longer is not trained on

    c.train = ml_collections.ConfigDict()
    c.train.steps = 100_000
    c.train.seed = 1  # initialisation, dropout and data order; never corpus or vocabulary
    c.train.log_every = 100  # steps between lines of metrics.jsonl
    c.train.eval_every = 5000  # steps between dev perplexities; the last step always has one
    c.train.checkpoint_every = 5000  # steps between checkpoints; the last step always has one
    c.train.keep_checkpoints = 5  # how many of the newest stay on disk
    c.train.select = "last"  # which parameters are scored (the paper's); or best: of the lowest dev loss
    c.train.remat = False  # layers keep their input alone for the backward pass and are computed again: less memory
    c.train.micro_batches = 1  # parts that a step computes a batch in, one after the other, to need less memory
    c.train.steps_per_dispatch = 1  # updates in one call of the device: more spares a small model waiting for the host

    c.parallel = ml_collections.ConfigDict()  # where a run is computed, not what: no two runs differ by it alone
    c.parallel.mode = "jit"  # one program over a mesh; or pmap, in which each device draws dropout masks of its own
    c.parallel.threads = 2  # that a CPU computes with, whatever cores it has: another number gives other last digits
    c.parallel.deterministic = False  # on a GPU: kernels that give equal bits each time, at some cost of speed
    c.parallel.devices = 1  # how many, those of all processes together; each takes an equal part of batch_rows. 0: all
    c.parallel.fsdp_shards = 1  # parts that big parameters and their moments are cut into, to save memory; jit only

    c.decode = ml_collections.ConfigDict()
    c.decode.splits = (
        "validation"  # comma-separated; the first one's BLEU stands in the table (newstest2013 in Table 3)
    )
    c.decode.task = "sentence"  # translate the whole of it; or last: predict its last token from the earlier ones
    c.decode.beam = 4  # section 6.1; 1 is greedy
    c.decode.alpha = 0.6  # length penalty ((5 + len) / 6)^alpha
    c.decode.extra_length = 50  # output is at most input + 50 tokens
    c.decode.batch_tokens = 8192  # source tokens (padding included) translated at once
    c.decode.average_last = 1  # checkpoints averaged before decoding (1: none, as in Table 3; 5 in Table 2)

    c.probe = ml_collections.ConfigDict()  # what else is measured of the trained model
    c.probe.attention = False  # every head's entropy, distance, variance of logits, and the dev loss without it
    return c.lock()


def fields(config: ml_collections.ConfigDict | dict, prefix: str = "") -> dict[str, object]:
    """Returns {dotted name: value} of every leaf, e.g. {"model.d_model": 512, ...}; also of nested dicts."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict | dict):
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
    before, after, default = fields(before), fields(after), fields(get_config())
    pairs = {
        name: tuple(one.get(name, default.get(name, absent)) for one in (before, after))
        for name in sorted(before.keys() | after.keys())
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

    Raises UserError for an unknown field (naming its new name or the nearest one) and for a value of another type, or
    one that no file or device can hold. Whole numbers are taken for float fields; the strings of a command line are
    parsed by the field's own type.
    """
    known = fields(config)
    for name, value in diff.items():
        if name in NEW_NAMES:
            raise UserError(f"{where}: {name} is now called {NEW_NAMES[name]}; write that")
        if name not in known:
            raise unknown(f"{where}: no configuration field", name, known)
        *path, leaf = name.split(".")
        node = config
        for key in path:
            node = node[key]
        node[leaf] = _coerce(name, value, type(known[name]), where)
    config.data.corpus = _whole_path(config.data.corpus)


def _whole_path(corpus):
    """Returns data.corpus with a folder's whole path, since a run may be opened from elsewhere than it was started."""
    folder = corpus.removeprefix(FOLDER)
    return FOLDER + os.path.abspath(os.path.expanduser(folder)) if folder and folder != corpus else corpus


def _coerce(name, value, kind, where):
    try:
        if isinstance(value, str) and kind is not str:
            if kind is bool:
                return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
            value = _parsed(value.replace("_", ""), kind)
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

_CHOICES = {
    "model.architecture": ("encoder_decoder", "decoder_only"),
    "model.sinusoid_layout": ("concatenated", "interleaved"),
    "model.norm": ("post", "pre", "none"),
    "model.tying": ("three", "two", "none"),
    "model.attention_backend": ("xla", "cudnn"),
    "model.dtype": ("float32", "bfloat16"),
    "loss.smooth_over": ("others", "all"),
    "data.tokenizer": ("bpe", "unigram", "char", "word"),
    "data.vocab": ("exact", "fit"),
    "decode.task": ("sentence", "last"),
    "parallel.mode": ("jit", "pmap"),
    "train.select": ("last", "best"),
}
_MAY_BE_ZERO = {
    "model.target_spaces",
    "model.num_kv_heads",
    "model.decoder_layers",
    "decode.extra_length",
    "decode.alpha",
    "optim.warmup_steps",
    "train.seed",
    "parallel.devices",
}
_SHARES = {  # of a whole
    "model.dropout",
    "model.attention_dropout",
    "model.relu_dropout",
    "loss.label_smoothing",
    "optim.beta1",
    "optim.beta2",
}


def validate(config: ml_collections.ConfigDict) -> None:
    """Raises UserError, one line, for the first value that no run can have."""
    _check_each(config)
    _check_model(config)
    _check_data_and_training(config)


def _check_each(config):
    for name, value in fields(config).items():
        if name in _CHOICES and value not in _CHOICES[name]:
            raise UserError(f"{name} is one of {', '.join(_CHOICES[name])}; got {value!r}")
        if name in _SHARES:
            if not 0 <= value < 1:
                raise UserError(f"{name} must lie in [0, 1); got {value}")
        elif type(value) in (int, float) and not (value > 0 or (value == 0 and name in _MAY_BE_ZERO)):
            least = "at least 0" if name in _MAY_BE_ZERO else "positive"
            raise UserError(f"{name} must be {least}; got {value}")


def _check_model(config):
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
        _refuse_what_cudnn_lacks(config.model)
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


def _refuse_what_cudnn_lacks(model):
    needed = {
        "model.dtype=bfloat16": model.dtype == "bfloat16",
        "model.attention_dropout=0": model.attention_dropout == 0,
        "model.d_k = model.d_v": model.d_k == model.d_v,
        "model.similarity=scaled": model.similarity == "scaled",
        "model.num_kv_heads=0": model.num_kv_heads == 0,
        "positions that add nothing to the logits": model.positions not in ("relative", "t5", "alibi"),
        "model.d_k a multiple of 8, at most 128": model.d_k % 8 == 0 and model.d_k <= 128,
    }
    if lacking := [what for what, there in needed.items() if not there]:
        needs = "; ".join(lacking)
        raise UserError(f"model.attention_backend=cudnn needs {needs}; or set model.attention_backend=xla")
