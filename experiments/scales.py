"""Scales: how large a sweep is run. A scale sets corpus and recipe, and shrinks any variant by three factors.

At scale `paper` the factors are 1 and the numbers are the paper's. Elsewhere `width` multiplies d_model and d_ff,
`heads` multiplies d_k and d_v, and `depth` multiplies N, of whatever row is run, and the layers of a decoder that has
others than the encoder; h stays, so a small table keeps the structure of the big one. Where heads shrink less than the
model it is because row B shows a small d_k to be bad: base would be judged by a fault that another row is there to
show. Depth 1/2 keeps the rows N=2, 4, 6, 8 apart (1, 2, 3, 4); 1/3 would not.

A row that trains longer in the paper (big, three times) does so at every scale, in proportion.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from fractions import Fraction

import tx.config
from tx.errors import UserError, unknown

FACTORS = {  # the sizes that each of a scale's factors multiplies
    "width": ("model.d_model", "model.d_ff"),
    "heads": ("model.d_k", "model.d_v"),
    "depth": ("model.num_layers", "model.decoder_layers"),
}
FOLLOWING = ("model.decoder_layers",)  # sizes of which 0 stands for another's
PAPER = tx.config.fields(tx.config.get_config())
# A variant's field, and the field of the recipe that it keeps its proportion to.
PROPORTIONAL = {
    "optim.warmup_steps": "optim.warmup_steps",
    "optim.lr_factor": "optim.lr_factor",
    "train.steps": "train.steps",
    "train.eval_every": "train.steps",
    "train.checkpoint_every": "train.steps",
}
EVERY = ("train.eval_every", "train.checkpoint_every")  # which follow a row's own train.steps
PAPER_TEST = "test"  # the split of the paper's corpus that Table 2 translates, in TFDS's name: newstest2014
PAIR = ("en", "de")  # source and target where a scale's name gives none


@dataclasses.dataclass(frozen=True)
class Scale:
    """Scale of experiments: corpus, recipe and factors that any variant can be run at.

    Attributes:
      name: what stands after the @.
      doc: one line for `python -m experiments list`.
      corpus: the data.corpus field; "{other}" stands for the language of the pair that is not English.
      width: multiplies d_model and d_ff; a number of any kind, as the next two.
      heads: multiplies d_k and d_v.
      depth: multiplies N, and the layers of a decoder that has others.
      fields: the recipe: {dotted field: value}, the same for every row of a table.
      pairs: the "source-target" pairs that the corpus has; empty: whatever the corpus turns out to have.
      pair: (source, target), if the name says nothing else.
    """

    name: str
    doc: str
    corpus: str
    width: Fraction | float | int = Fraction(1)
    heads: Fraction | float | int = Fraction(1)
    depth: Fraction | float | int = Fraction(1)
    fields: Mapping[str, object] = dataclasses.field(default_factory=dict)
    pairs: tuple[str, ...] = ()
    pair: tuple[str, str] = PAIR

    def __post_init__(self):
        for name in FACTORS:
            # By its digits: 0.1 is a tenth, and not the binary fraction next to it.
            object.__setattr__(self, name, Fraction(str(getattr(self, name))))

    @property
    def label(self) -> str:
        """The scale as names write it: "multi30k", or "multi30k.en-fr" for a pair other than its own, mostly en-de."""
        own = SCALES[self.name].pair if self.name in SCALES else PAIR
        return self.name if self.pair == own else f"{self.name}.{'-'.join(self.pair)}"

    def settings(self) -> dict[str, object]:
        """Returns every field that the scale itself sets, corpus and languages included."""
        source, target = self.pair
        corpus = self.corpus.replace("{other}", target if source == "en" else source)
        return {"data.corpus": corpus, "data.source": source, "data.target": target, **self.fields}

    def rescale_recipe(self, diff: Mapping[str, object], where: str = "variant") -> dict[str, object]:
        """Rescales the recipe of a variant's diff in proportion to this scale's.

        In the paper's numbers warm-up 8000 and factor 2.0 are twice the paper's, and become twice the scale's; a
        checkpoint every 5,000 of 100,000 steps becomes one every twentieth part of the scale's. What trains three times
        as long is evaluated and saved a third as often, unless the diff says otherwise.

        Raises UserError, saying `where`, for a value of the recipe that is no number.
        """
        numbers = {name: _number(name, diff[name], where) for name in PROPORTIONAL.keys() & diff.keys()}
        rescaled = dict(diff)
        if diff.get("decode.splits") == PAPER_TEST and "decode.splits" in self.fields:
            rescaled["decode.splits"] = self.fields["decode.splits"]  # newstest2014 there, its own test sentences here
        for name, number in numbers.items():
            measure = PROPORTIONAL[name]
            value = number * self.fields.get(measure, PAPER[measure]) / PAPER[measure]
            rescaled[name] = round(value) if isinstance(PAPER[name], int) else value
        for name in EVERY if "train.steps" in diff else ():
            every = self.fields.get(name, PAPER[name])
            rescaled.setdefault(name, round(every * numbers["train.steps"] / PAPER["train.steps"]))
        # In a short training less than a step is a step.
        return rescaled | {name: 1 for name in EVERY if rescaled.get(name) == 0 and numbers.get(name, 1) > 0}

    def scale_sizes(self, fields: Mapping[str, object], where: str) -> dict[str, int]:
        """Returns the sizes among `fields` ({dotted name: value}), multiplied by the scale's factors.

        Raises UserError where the product is not a positive whole number.
        """
        factors = {name: getattr(self, factor) for factor, names in FACTORS.items() for name in names}
        scaled = {}
        for name, factor in factors.items():
            size = fields[name] * factor
            if name in FOLLOWING and not fields[name]:
                size = Fraction(0)
            elif size < 1 or size.denominator != 1:
                raise UserError(
                    f"{where}: {name}={fields[name]} times {factor} (scale {self.name}) is {size}, not a "
                    f"positive whole number; choose {name} as a multiple of {factor.denominator}"
                )
            scaled[name] = int(size)
        return scaled


def _number(name, value, where):
    """Returns the number that a diff gives; one of a whole-number field need not be whole until it is rescaled."""
    return value if isinstance(value, float) and math.isfinite(value) else tx.config.parse(name, value, where)


def _with_english(*others: str) -> tuple[str, ...]:
    return tuple(pair for other in others for pair in (f"en-{other}", f"{other}-en"))


def _smaller(row_length, batch_rows, steps, warmup, every, vocabulary, splits, lr_factor=1.0):
    return {
        "model.vocab_size": vocabulary,
        "data.row_length": row_length,
        "data.batch_rows": batch_rows,
        "train.steps": steps,
        "train.eval_every": every,
        "train.checkpoint_every": every,
        "optim.warmup_steps": warmup,
        "optim.lr_factor": lr_factor,
        "decode.splits": splits,
        # With the norm after the sub-layer, as in the paper, rows spend most of a short training on a plateau, where
        # the model is one of the target language alone: a table would show how long each takes to leave it.
        # tensor2tensor made pre-norm its default in October 2017.
        "model.norm": "pre",
        "train.select": "best",  # on a small corpus rows overfit at different times
        # Two runs of one thread, side by side on two cores, make 1.2 times as many steps as two of two threads, and 1.3
        # times as many as one of two threads after the other.
        "parallel.threads": 1,
    }


SCALES = {
    scale.name: scale
    for scale in (
        # The paper's own numbers are the defaults of tx/fields.py: 100K steps, warm-up 4000, V = 40,960.
        Scale(
            "paper",
            "WMT14 as in the paper: 100K steps (big 300K), batches of 25,000 tokens",
            "wmt14_translate/{other}-en",
            pairs=_with_english("cs", "de", "fr", "hi", "ru"),
        ),
        Scale(
            "tatoeba",
            "Tatoeba sentence pairs, d_model 256, d_k 32, N 3: for a GPU",
            "tatoeba",
            width=Fraction(1, 2),
            heads=Fraction(1, 2),
            depth=Fraction(1, 2),
            fields=_smaller(64, 64, 2500, 500, 250, vocabulary=8000, splits="test"),
        ),
        Scale(
            "multi30k",
            "Multi30k image captions, d_model 128, d_k 32, N 3",
            "multi30k",
            width=Fraction(1, 4),
            heads=Fraction(1, 2),
            depth=Fraction(1, 2),
            fields=_smaller(
                *(64, 32, 4500, 600, 300),
                vocabulary=4000,
                lr_factor=1.4,
                splits="test_2016_flickr,test_2017_flickr,test_2017_mscoco",
            ),
        ),
        Scale(
            "smoke",
            "generated number sentences, d_model 64, d_k 16, N 3: minutes on two CPU cores",
            "numbers",
            width=Fraction(1, 8),
            heads=Fraction(1, 4),
            depth=Fraction(1, 2),
            fields=_smaller(48, 12, 750, 200, 150, vocabulary=500, lr_factor=0.6, splits="test"),
            pairs=_with_english("de"),
        ),
        Scale(
            "recall",
            "a value to be remembered over 2 to 64 positions, d_model 64, d_k 16, N 3",
            "recall",
            width=Fraction(1, 8),
            heads=Fraction(1, 4),
            depth=Fraction(1, 2),
            fields=_smaller(72, 12, 1000, 200, 200, vocabulary=320, lr_factor=0.6, splits="test")
            | {"decode.task": "last"},
            pairs=_with_english("de"),
        ),
    )
}


def register(scale: Scale) -> Scale:
    """Adds a scale; ValueError where its name is taken or malformed. Returns it."""
    if scale.name in SCALES:
        raise ValueError(f"scale {scale.name!r} is registered already")
    if not re.fullmatch(r"[\w-]+", scale.name):
        raise ValueError(f"scale {scale.name!r}: a name has letters, digits, _ and - alone")
    SCALES[scale.name] = scale
    return scale


def parse_scale(label: str) -> Scale:
    """Reads "multi30k" or "multi30k.en-fr"; UserError for an unknown scale or pair."""
    name, dot, pair = label.partition(".")
    if name not in SCALES:
        more = f" (there are {', '.join(SCALES)}; one of your own needs --import FILE.py)"
        raise unknown("unknown scale", name, SCALES, more)
    scale = SCALES[name]
    if not dot:
        return scale
    match = re.fullmatch(r"([a-z]{2,3}(?:_[a-zA-Z]+)?)-([a-z]{2,3}(?:_[a-zA-Z]+)?)", pair)
    if not match or match[1] == match[2]:
        raise UserError(f"{label!r}: {pair!r} is no language pair; write SOURCE-TARGET, e.g. {name}.de-en")
    if scale.pairs and pair not in scale.pairs:
        more = f" (there are {', '.join(scale.pairs)})"
        raise unknown(f"{label!r}: scale {name} has no pair", pair, scale.pairs, more)
    return dataclasses.replace(scale, pair=(match[1], match[2]))
