"""Fields of a configuration: the default of each (the paper's base), its meaning, the paper's symbol, what it takes.

Section and table numbers are those of "Attention Is All You Need" (arXiv 1706.03762); "June 2017 code" is
tensor2tensor at its first public commit.
"""

import dataclasses

from tx.errors import UserError

POSITIVE, AT_LEAST_0, SHARE, ANY = "positive", "at least 0", "in [0, 1)", "any number"


@dataclasses.dataclass(frozen=True)
class Field:
    """Field of a configuration, built in or a component's (`tx.registry`).

    Attributes:
      default: it also gives the type: bool, int, float or str.
      meaning: one line.
      takes: of a number, POSITIVE, AT_LEAST_0, SHARE or ANY; of a text, the choices that there are, () for any text.
      symbol: the paper's, or the literature's.

    Raises ValueError where these do not fit together.
    """

    default: object
    meaning: str
    takes: str | tuple[str, ...] = POSITIVE
    symbol: str = ""

    def __post_init__(self):
        if type(self.default) not in (bool, int, float, str):
            raise ValueError(f"the default of a field is true or false, a number or a text; got {self.default!r}")
        if not self.meaning.strip() or len(self.meaning.splitlines()) > 1:
            raise ValueError(f"the meaning of a field is one line; got {self.meaning!r}")
        numbers = type(self.default) in (int, float)
        if numbers and self.takes not in (POSITIVE, AT_LEAST_0, SHARE, ANY):
            raise ValueError(f"a number is one of {POSITIVE}, {AT_LEAST_0}, {SHARE}, {ANY}; got {self.takes!r}")
        if type(self.default) is str and self.takes != POSITIVE and not isinstance(self.takes, tuple):
            raise ValueError(f"what a text takes is a tuple of its choices; got {self.takes!r}")  # else any would do
        try:
            self.check("the default", self.default)
        except UserError as error:
            raise ValueError(str(error)) from None

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it takes, as a command line gives them, if they are few; else ()."""
        if isinstance(self.default, bool):
            return "false", "true"
        return self.takes if isinstance(self.takes, tuple) else ()

    @property
    def described(self) -> str:
        """What values it takes, in words; "" for any of its type."""
        if type(self.default) in (int, float):
            return self.takes
        return ", ".join(self.takes) if isinstance(self.takes, tuple) else ""

    def check(self, name: str, value: bool | int | float | str) -> None:
        """Raises UserError for a value of the field's type that it does not take; `name` is for the message."""
        if type(value) is str and isinstance(self.takes, tuple) and self.takes and value not in self.takes:
            raise UserError(f"{name} is one of {', '.join(self.takes)}; got {value!r}")
        if type(value) not in (int, float) or self.takes == ANY:
            return
        if self.takes == SHARE:
            if not 0 <= value < 1:
                raise UserError(f"{name} must lie in [0, 1); got {value}")
        elif not (value > 0 or (value == 0 and self.takes == AT_LEAST_0)):
            raise UserError(f"{name} must be {self.takes}; got {value}")


_MODEL = {
    "vocab_size": Field(40_960, 'shared subwords; the June 2017 code\'s number (the text: "about 37000")', symbol="V"),
    "architecture": Field(
        "encoder_decoder",
        "or decoder_only: one stack over source and target (prefix attention)",
        ("encoder_decoder", "decoder_only"),
    ),
    "num_layers": Field(6, "layers in the encoder, and again in the decoder; or of the one stack", symbol="N"),
    "decoder_layers": Field(0, "layers in the decoder; 0: as many as in the encoder", AT_LEAST_0),
    "d_model": Field(512, "width of embeddings and of every sub-layer's output", symbol="d_model"),
    "d_ff": Field(2048, "inner width of the feed-forward networks", symbol="d_ff"),
    "num_heads": Field(8, "heads of attention", symbol="h"),
    "d_k": Field(64, "width of one head's queries and keys, independent of h and d_model", symbol="d_k"),
    "d_v": Field(64, "width of one head's values", symbol="d_v"),
    "num_kv_heads": Field(0, "heads of keys and values, each shared by a group of the h; 0: as many as h", AT_LEAST_0),
    "similarity": Field("scaled", "of a query and a key (section 3.2.1)"),
    "mixer": Field("attention", "what mixes a sentence's positions (Table 1)"),
    "neighbourhood": Field(16, 'how far mixer "local" reaches to each side', symbol="r"),
    "kernel_width": Field(3, "taps of a convolution", symbol="k"),
    "feed_forward": Field("relu", "the feed-forward network of a layer (section 3.3)"),
    "dropout": Field(
        *(0.1, "on each sub-layer's output, and on embedding + position (section 5.4)", SHARE), symbol="P_drop"
    ),
    "attention_dropout": Field(0.0, "on attention weights; 0 in the paper, 0.1 in later tensor2tensor presets", SHARE),
    "relu_dropout": Field(0.0, "after the ReLU; 0 in the paper, 0.1 in later tensor2tensor presets", SHARE),
    "drop_residual": Field(True, "whether P_drop acts on each sub-layer's output"),
    "drop_embedding": Field(True, "whether P_drop acts on embedding + position"),
    "positions": Field("sinusoidal", "how a position is told (section 3.5; tx/model/positions.py)"),
    "sinusoid_layout": Field(
        "concatenated",
        "all sines, then all cosines (code); or interleaved (section 3.5)",
        ("concatenated", "interleaved"),
    ),
    "sinusoid_endpoint": Field(True, "slowest frequency exactly 1/10000 (code), or one step short of it (text)"),
    "scale_positions": Field(True, "multiply the learned position table by sqrt(d_model), as the code does"),
    "max_positions": Field(512, "rows of the learned position table; a longer sentence is refused"),
    "max_offset": Field(16, "relative positions: offsets from here on share a vector"),
    "norm": Field(
        *("post", "Norm(x + Sublayer(x)) (section 3.1); or pre: x + Sublayer(Norm(x)); or none"),
        ("post", "pre", "none"),
    ),
    "normalization": Field("layer", "what Norm is"),
    "residual": Field(True, "whether x is added to what a sub-layer makes of it"),
    "projection_bias": Field(True, "biases on the attention projections (code; the text's formulas have none)"),
    "target_spaces": Field(
        32, "rows of the target-space table added to the encoder input (code); 0: no table", AT_LEAST_0
    ),
    "tying": Field(
        "three",
        "source embedding, target embedding and softmax share a matrix (section 3.4); two, none",
        ("three", "two", "none"),
    ),
    "scale_embedding": Field(True, "multiply embeddings by sqrt(d_model) (section 3.4)"),
    "attention_backend": Field(
        "xla", "what trains attention; or cudnn: one fused kernel, on NVIDIA GPUs in bfloat16", ("xla", "cudnn")
    ),
    "kernels": Field(
        "xla",
        "what trains beside products and attention; or pallas: kernels for one NVIDIA GPU, which no device has run yet",
        ("xla", "pallas"),
    ),
    "dtype": Field(
        "float32",
        "of the arithmetic; parameters, softmax, layer norm and loss stay float32. Products of float32 are those of "
        "JAX's default: of TF32 on an A100 or H100, of bfloat16 on a TPU",
        ("float32", "bfloat16"),
    ),
}

_LOSS = {
    "name": Field("label_smoothed", "what is minimised: a function of a token's logits and its label (section 5.4)"),
    "label_smoothing": Field(0.1, "share of a label that goes to other classes (section 5.4)", SHARE, "eps_ls"),
    "smooth_over": Field(
        "others",
        "eps_ls is spread over the V-1 other classes (code), or over all V (Szegedy et al.)",
        ("others", "all"),
    ),
}

_OPTIM = {
    "optimizer": Field("adam", "what makes updates of gradients (section 5.3)"),
    "warmup_steps": Field(4000, "steps over which the rate rises (equation 3)", AT_LEAST_0, "warmup_steps"),
    "lr_factor": Field(1.0, "multiplies equation 3"),
    "schedule": Field("inverse_sqrt", "the rate after the warm-up (equation 3)"),
    "linear_warmup": Field(True, "the rate rises from 0 while it warms up; else it starts where that leads to"),
    "scale_by_width": Field(True, "times d_model^-0.5; else times 512^-0.5, whatever d_model is"),
    "clip_norm": Field(
        0.0, "gradients of a greater norm, over all parameters, are scaled down to it; 0: none", AT_LEAST_0
    ),
    "beta1": Field(0.9, "decay of the mean of the gradients", SHARE, "beta_1"),
    "beta2": Field(0.98, "decay of the mean of their squares", SHARE, "beta_2"),
    "epsilon": Field(1e-9, "added to the root of the mean of the squares", symbol="epsilon"),
}

_DATA = {
    "corpus": Field("wmt14_translate/de-en", "a TFDS set; numbers, recall, multi30k, tatoeba; or own text, files:DIR"),
    "source": Field("en", "language that is translated"),
    "target": Field("de", "language that it is translated into"),
    "dir": Field("", "folder with the text, looked in first; then $TX_DATA_DIR; then the cache"),
    "tokenizer": Field(
        "bpe", "what cuts sentences into subwords (byte pairs, section 5.1)", ("bpe", "unigram", "char", "word")
    ),
    "vocab": Field(
        "exact", "V subwords, no other number; or fit: as many as the training text allows, at most V", ("exact", "fit")
    ),
    "lowercase": Field(False, "both sides in lower case: what is learned from, translated and compared with"),
    "row_length": Field(256, "tokens of a packed row, on each side: no training sentence may be longer"),
    "batch_rows": Field(96, 'rows of a batch: 96 x 256 is "approximately 25000" tokens a side (section 5.1)'),
    "max_length_quantile": Field(1.0, "of the training sentences' lengths: what is longer is not trained on"),
}

_TRAIN = {
    "steps": Field(100_000, "updates"),
    "seed": Field(1, "initialisation, dropout and data order; never corpus or vocabulary", AT_LEAST_0),
    "log_every": Field(100, "steps between lines of metrics.jsonl"),
    "eval_every": Field(5000, "steps between dev perplexities; the last step always has one"),
    "checkpoint_every": Field(5000, "steps between checkpoints; the last step always has one"),
    "keep_checkpoints": Field(5, "how many of the newest stay on disk"),
    "select": Field(
        "last", "which parameters are scored (the paper's); or best: of the lowest dev loss", ("last", "best")
    ),
    "ema": Field(
        *(0.0, "decay of the parameters' moving average, with which dev loss and translation then go; 0: none", SHARE)
    ),
    "remat": Field(False, "layers keep their input alone for the backward pass and are computed again: less memory"),
    "micro_batches": Field(1, "parts that a step computes a batch in, one after the other, to need less memory"),
    "steps_per_dispatch": Field(1, "updates in one call of the device: more spares a small model waiting for the host"),
}

_PARALLEL = {  # where a run is computed, not what: no two runs differ by it alone
    "mode": Field(
        *("jit", "one program over a mesh; or pmap, in which each device draws dropout masks of its own"),
        ("jit", "pmap"),
    ),
    "threads": Field(2, "that a CPU computes with, whatever cores it has: another number gives other last digits"),
    "deterministic": Field(False, "on a GPU: kernels that give equal bits each time, at some cost of speed"),
    "devices": Field(1, "those of all processes together; each takes an equal part of batch_rows; 0: all", AT_LEAST_0),
    "fsdp_shards": Field(1, "parts that big parameters and their moments are cut into, to save memory; jit only"),
}

_DECODE = {
    "splits": Field(
        "validation", "comma-separated; the first one's BLEU stands in the table (newstest2013 in Table 3)"
    ),
    "task": Field(
        "sentence", "translate the whole; or last: predict its last token from the earlier ones", ("sentence", "last")
    ),
    "beam": Field(4, "hypotheses of the search (section 6.1); 1 is greedy"),
    "alpha": Field(0.6, "exponent of the length penalty, which log-probabilities are divided by", AT_LEAST_0, "alpha"),
    "length_penalty": Field(
        "wu2016", "wu2016: ((5 + len) / 6)^alpha, as in section 6.1; length: len^alpha", ("wu2016", "length")
    ),
    "extra_length": Field(50, "output is at most input + so many tokens", AT_LEAST_0),
    "batch_tokens": Field(8192, "source tokens (padding included) translated at once"),
    "average_last": Field(1, "checkpoints averaged before decoding (1: none, as in Table 3; 5 in Table 2)"),
}

_PROBE = {  # what else is measured of the trained model
    "attention": Field(False, "every head's entropy, distance, variance of logits, and the dev loss without it"),
    "metrics": Field("", "comma-separated; of the translations, each a column of the tables"),
}

_GROUPS = {
    "model": _MODEL,
    "loss": _LOSS,
    "optim": _OPTIM,
    "data": _DATA,
    "train": _TRAIN,
    "parallel": _PARALLEL,
    "decode": _DECODE,
    "probe": _PROBE,
}

FIELDS = {  # of every run, by dotted name; those of components are in tx/components.py
    "version": Field(1, "raised when a field changes its meaning; recorded with every run"),
    "name": Field("base", "SWEEP/VARIANT@SCALE, for messages and result files"),
} | {f"{group}.{leaf}": field for group, fields in _GROUPS.items() for leaf, field in fields.items()}
