"""Claims about every sweep, as data: which row is better than which, who says so, and at which scales.

The expectations of Table 3 are computed from the numbers that it prints: a difference from base of less than 0.05 PPL
or 0.2 BLEU is taken for none. Its perplexities are of the true labels, as ours are, not of smoothed ones:
tensor2tensor's `padded_neg_log_perplexity` measures without smoothing, so that the rows of eps_ls compare as the others
do. What is expected of the other sweeps is what their modules' docstrings say.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from experiments import registry
from experiments.registry import PaperRow
from experiments.scales import PAPER, SCALES
from tx.data.synthetic import recall

NO_DIFFERENCE = {"ppl": 0.05, "bleu": 0.2}  # what is smaller than that counts as none, in the paper's numbers
TRANSLATED = tuple(name for name, scale in SCALES.items() if "decode.task" not in scale.fields)
_PRE_NORM = tuple(name for name in TRANSLATED if SCALES[name].fields.get("model.norm") == "pre")
_POST_NORM = tuple(name for name in TRANSLATED if name not in _PRE_NORM)
OURS = "ours"  # the source of what no paper says
_TUNED = ("optimizers",)  # sweeps whose rows have no rate in common
_TABLE3 = registry.sweep("table3")
_BASE = _TABLE3.variants[0].paper
MARGINS = {
    "ppl": math.log1p(NO_DIFFERENCE["ppl"] / _BASE.ppl),  # 0.01 nats
    **dict.fromkeys(("bleu", "BLEU within", "BLEU beyond"), NO_DIFFERENCE["bleu"]),
    **{f"{distance} back": 5.0 for distance in recall.DISTANCES},  # per cent
}


@dataclasses.dataclass(frozen=True)
class Claim:
    """Claim about two rows: how their comparison is said to come out.

    Attributes:
      sweep, row: a row of a sweep.
      sign: of the row's value less the other's: +1, higher (of perplexity: worse; of BLEU: better); -1, lower; 0, no
        difference, to be judged by equivalence.
      or_equal: whether no difference is as well as said, as in "no worse": to be judged by equivalence to one side.
      statement: one sentence.
      source: section or table of the paper, a later paper, or OURS.
      against: the row that it is compared with; the base by default.
      measure: "ppl", log-perplexity on the dev set in nats a subword; "bleu"; or a name in the sweep's `measures`.
      margin: a difference of values up to which there is none; by default the measure's.
      printed: the difference of values that the source prints; None where it says no more than the sign.
      scales: names of the scales at which it is meant.
      tuned: whether it is meant of rows at rates of their own, as --tune optim.lr_factor=... gives, and says nothing of
        others.

    Raises UserError for a sweep or a row that there is not.
    """

    sweep: str
    row: str
    sign: int
    statement: str
    source: str
    against: str = ""
    measure: str = "ppl"
    margin: float | None = None
    printed: float | None = None
    scales: tuple[str, ...] = TRANSLATED
    tuned: bool = False
    or_equal: bool = False

    def __post_init__(self):
        found = registry.sweep(self.sweep)
        base = found.variants[0].name
        object.__setattr__(self, "row", found.variant(self.row).name)
        object.__setattr__(self, "against", found.variant(self.against or base).name)
        if self.margin is None:
            object.__setattr__(self, "margin", MARGINS.get(self.measure, 0.0))

    @property
    def allows_equality(self) -> bool:
        """Whether rows that do not differ are as it says."""
        return self.or_equal or self.sign == 0

    @property
    def relation(self) -> str:
        """How the row's value is said to compare with the other's: "<", "<=", "=", ">=" or ">"."""
        return {-1: "<", 0: "", 1: ">"}[self.sign] + "=" * self.allows_equality


def direction(row: PaperRow | None, base: PaperRow | None, measure: str) -> int | None:
    """Returns the sign of a printed difference in "ppl" or "bleu": 0 where it counts as none, None if not printed."""
    values = [getattr(paper, measure, None) for paper in (row, base)]
    if None in values:
        return None
    difference = round(values[0] - values[1], 6)  # in floating point, 26.0 - 25.8 is less than 0.2
    return 0 if abs(difference) < NO_DIFFERENCE[measure] else int(math.copysign(1, difference))


def _printed(sweep: str, rows: Mapping[str, str]) -> Iterator[Claim]:
    """Yields what Table 3 prints of rows of a sweep with its base: {row of Table 3: row of the sweep}."""
    for of_table, row in rows.items():
        paper = _TABLE3.variant(of_table).paper
        for measure, name, form in (("ppl", "perplexity", ".2f"), ("bleu", "BLEU", ".1f")):
            value, base = getattr(paper, measure), getattr(_BASE, measure)
            sign = direction(paper, _BASE, measure)
            how = {1: f"a higher {name} than", -1: f"a lower {name} than", 0: f"the same {name} as"}[sign]
            yield Claim(
                sweep,
                row,
                sign,
                f"{of_table} has {how} base: {value:{form}}, where base has {base:{form}}.",
                "Table 3",
                measure=measure,
                printed=math.log(value / base) if measure == "ppl" else value - base,
            )


def _said(sweep: str, source: str, statement: str, *comparisons: str) -> Iterator[Claim]:
    """Makes a claim of each "row > other", of log-perplexity; "bleu: row <= other"; "row = other @paper,smoke"."""
    for comparison in comparisons:
        measure, row, how, other, scales = re.fullmatch(
            r"(?:([^:]+): )?(\S+) (<=?|=|>=?) (\S+)(?: @(\S+))?", comparison
        ).groups()
        meant = tuple(scales.split(",")) if scales else TRANSLATED
        sign, or_equal = {"<": -1, "=": 0, ">": 1}[how[0]], how in ("<=", ">=")
        more = {"scales": meant, "tuned": sweep in _TUNED, "or_equal": or_equal}
        yield Claim(sweep, row, sign, statement, source, other, measure or "ppl", **more)


def _reaches() -> Iterator[Claim]:
    """Yields what the mixers of Table 1 remember at scale `recall`: in reach as much as self-attention, beyond less.

    A decoder of N layers sees N r positions back through neighbourhoods of r, N (k - 1) through kernels of k, and
    (k - 1)(1 + k + ... + k^(N-1)) = k^N - 1 through dilated ones.
    """
    layers, k = int(PAPER["model.num_layers"] * SCALES["recall"].depth), 3
    reaches = {
        "recurrent": math.inf,
        **{f"self-attention/r={r}": layers * r for r in (4, 16)},
        f"convolution/k={k}": layers * (k - 1),
        f"dilated/k={k}": k**layers - 1,
    }
    for row, reach in reaches.items():
        seen = "any distance" if reach == math.inf else f"{reach} positions"
        for distance in recall.DISTANCES:
            how = "as often as" if distance <= reach else "less often than"
            yield Claim(
                "table1",
                row,
                0 if distance <= reach else -1,
                f"{row} reaches {seen} back, and remembers over {distance} {how} self-attention.",
                "Table 1, maximum path length",
                measure=f"{distance} back",
                scales=("recall",),
            )


def _beams(beam, alpha=0.6, average=1):
    return f"beam={beam}/alpha={alpha}/average={average}"


_OFFSETS = ("relative", "t5", "alibi", "rotary")
_AVERAGE = ("section 6.1; Popel and Bojar 2018", "The average of the last five checkpoints is better than any one.")
_AT_PRE_NORM, _AT_POST_NORM, _AT_OTHER_WIDTHS, _AT_LONGER = (
    f"@{','.join(names)}"
    for names in (
        _PRE_NORM,
        _POST_NORM,
        [n for n in TRANSLATED if SCALES[n].width not in (1, 0.25)],  # where it is not the base, nor half its rate
        [n for n in TRANSLATED if n != "smoke"],  # where four times the warm-up ends within the training
    )
)

_SAID = {
    "add_norm": (
        ("Xiong et al. 2020", "Pre-norm needs no warm-up.", "pre/no-warmup <= pre"),
        ("Xiong et al. 2020", "Post-norm needs a warm-up.", "post/no-warmup > post"),
        ("Zhang and Sennrich 2019", "RMS norm equals layer norm.", "post-rms = post", "pre-rms = pre"),
        (
            *("section 3.1; He et al. 2016", "Without residuals hardly anything is learned."),
            *("norm-without-residual > post", "neither > post"),
        ),
        ("section 3.1; Ba et al. 2016", "Without norm training is slow or diverges.", "residual-without-norm > post"),
    ),
    "architecture": (
        (
            *("Raffel et al. 2020; Gao et al. 2022", "At equal parameters one stack does as well."),
            *("decoder-only/parameters <= encoder-decoder", "bleu: decoder-only/parameters >= encoder-decoder"),
        ),
        (
            *("Raffel et al. 2020", "At equal FLOPs an encoder and a decoder are ahead of one stack."),
            *("decoder-only/FLOPs > encoder-decoder", "bleu: decoder-only/FLOPs < encoder-decoder"),
        ),
    ),
    "decoding": (
        (
            *("section 6.1", "Greedy decoding is worse than a beam, of 2 already."),
            *(f"bleu: {_beams(1)} < {_beams(beam)}" for beam in (2, 4)),
        ),
        (
            *("section 6.1; Koehn and Knowles 2017", "Beams beyond 4 add nothing."),
            *(f"bleu: {_beams(beam)} <= {_beams(4)}" for beam in (8, 16)),
        ),
        (
            *("Koehn and Knowles 2017", "Large beams want a length penalty."),
            f"bleu: {_beams(16, alpha=0.0)} < {_beams(16)}",
        ),
        (*_AVERAGE, f"{_beams(4, average=5)} < {_beams(4)}", f"bleu: {_beams(4, average=5)} > {_beams(4)}"),
    ),
    "depth": (
        ("Kasai et al. 2021", "A deep encoder makes up for a shallow decoder.", "12-2 <= 6-6", "bleu: 12-2 >= 6-6"),
        ("Kasai et al. 2021", "A shallow decoder alone is worse.", "6-2 > 6-6", "bleu: 6-2 < 6-6"),
        (OURS, "Layers do more in the encoder than in the decoder.", "2-12 > 12-2", "bleu: 2-12 < 12-2"),
    ),
    "embeddings": (
        (
            *("Press and Wolf 2017", "Matrices of their own are no better than a shared one."),
            *("tied-two-ways >= tied-three-ways", "untied >= tied-three-ways"),
        ),
        (
            *("section 3.4", "An embedding that is not scaled up drowns in its position."),
            *("tied-three-ways/unscaled > tied-three-ways", "untied/unscaled > untied"),
        ),
        (OURS, "With one target language its vector changes nothing.", "no-target-space = tied-three-ways"),
    ),
    "feed_forward": (
        ("Narang et al. 2021", "GELU equals ReLU.", "gelu = relu"),
        ("Shazeer 2020", "SwiGLU is ahead of ReLU at equal parameters.", "swiglu < relu"),
        ("section 3.3", "Without the network much is lost.", "none > relu"),
    ),
    "heads": (
        ("section 3.2.2; Table 3", "One head is the worst number.", "h=1 > h=2", "h=1 > h=32"),
        ("Shazeer 2019", "One key and value for all heads is a little worse.", "h=8/kv=1 > h=8"),
        (
            *("Ainslie et al. 2023", "Keys and values shared in groups cost next to nothing."),
            *("h=8/kv=2 <= h=8", "h=8/kv=4 <= h=8"),
        ),
    ),
    "losses": (
        ("Chowdhery et al. 2022", "A z-loss of small weight costs nothing.", "z_loss/1e-4 <= base"),
        (OURS, "Focal losses flatten probabilities.", "focal/gamma=2 > base", "focal/gamma=2 > focal/gamma=1"),
        (OURS, "A focal loss translates as well.", *(f"bleu: focal/gamma={gamma} >= base" for gamma in (1, 2))),
    ),
    "optimizers": (
        (OURS, "With a warm-up, clipping changes nothing.", "adam/clip=1 = adam"),
        (OURS, "Beside dropout, a decay of 0.01 changes nothing.", "adamw = adam"),
        ("Chen et al. 2023", "Lion is no worse than Adam.", "lion <= adam"),
        ("Shazeer and Stern 2018", "Adafactor equals Adam with less memory.", "adafactor = adam"),
        ("Zhang et al. 2020", "Attention wants an adaptive rate.", "sgd > adam"),
        ("Jordan et al. 2024", "Muon is ahead of Adam at equal steps.", "muon < adam"),
    ),
    "positions": (
        (
            "section 3.5; Table 3",
            "Learned positions equal sinusoids.",
            *(f"BLEU within: {name} = sinusoidal" for name in ("learned", "learned/unscaled")),
        ),
        (
            *(OURS, "Offsets equal sinusoids within the trained lengths."),
            *(f"BLEU within: {name} = sinusoidal" for name in _OFFSETS),
        ),
        ("section 3.5", "A model that is told no positions falls behind.", "BLEU within: none < sinusoidal"),
        ("section 3.5", "Sinusoids extrapolate; learned positions do not.", "BLEU beyond: learned < sinusoidal"),
        (
            *("Press et al. 2022", "Offsets extrapolate better than sinusoids."),
            *(f"BLEU beyond: {name} > sinusoidal" for name in _OFFSETS if name != "relative"),
        ),
        (OURS, "So do trained vectors of offsets.", "BLEU beyond: relative > sinusoidal"),
    ),
    "regularisation": (
        (
            *(OURS, "Dropout of the residuals does most."),
            *(f"dropout/residual < dropout/{other}" for other in ("none", "embedding", "attention", "activation")),
        ),
        (
            *(OURS, "Over which classes a label is smoothed cannot be told."),
            *("smoothing/all = base", "bleu: smoothing/all = base"),
        ),
    ),
    "regularised": ((*_AVERAGE, "average=5 < base", "bleu: average=5 > base"),),
    "schedule": (
        (
            *(OURS, "Four times or a quarter of the warm-up is worse.", "warmup=1000 > base"),
            f"warmup=16000 > base {_AT_LONGER}",
        ),
        (OURS, "Twice or half the rate is worse.", "factor=0.5 > base", "factor=2 > base"),
        ("Xiong et al. 2020", "Post-norm needs a warm-up.", f"no-ramp > base {_AT_POST_NORM}"),
        ("Xiong et al. 2020", "Pre-norm needs no warm-up.", f"no-ramp <= base {_AT_PRE_NORM}"),
        (OURS, "The form of the decay matters little.", "constant = base"),
        (OURS, "A rate that ends at 0 comes out ahead at a fixed number of steps.", "cosine < base"),
        (OURS, "Without d_model in it the formula suits one width only.", f"no-width > base {_AT_OTHER_WIDTHS}"),
    ),
    "similarity": (
        (
            *("section 3.2.1; Britz et al. 2017", "At a small d_k all similarities do alike."),
            *(f"{name}/d_k=16 = scaled/d_k=16" for name in ("unscaled", "additive", "cosine")),
        ),
        (
            *("section 3.2.1", "At a large d_k products without scaling learn worst."),
            *(f"unscaled/d_k=256 > {name}/d_k=256" for name in ("scaled", "additive", "cosine")),
        ),
        (
            *("section 3.2.1", "Additive attention equals scaled products."),
            *(f"additive/d_k={d_k} = scaled/d_k={d_k}" for d_k in (64, 256)),
        ),
        (OURS, "A cosine equals scaled products.", *(f"cosine/d_k={d_k} = scaled/d_k={d_k}" for d_k in (64, 256))),
        (
            *("section 3.2.1", "At a large d_k products without scaling are large, and their softmax sharp."),
            *("logit variance: unscaled/d_k=256 > scaled/d_k=256", "entropy: unscaled/d_k=256 < scaled/d_k=256"),
        ),
    ),
    "table2": (("Table 2", "Big translates better than base.", "bleu: big > base"),),
    "table1": (
        (
            *(OURS, "What mixes sentences as short as captions makes no difference."),
            *(f"self-attention/r={r} = self-attention @multi30k" for r in (4, 16)),
            *(f"{name} = self-attention @multi30k" for name in ("recurrent", "convolution/k=3", "dilated/k=3")),
        ),
        (
            *("section 4", "On long sentences a short reach falls behind."),
            *(f"{name} > self-attention @paper" for name in ("self-attention/r=4", "convolution/k=3")),
        ),
    ),
}

CLAIMS: tuple[Claim, ...] = (
    *_printed("table3", {variant.name: variant.name for variant in _TABLE3.variants[1:]}),
    *_printed("heads", {f"A/h={h}": f"h={h}" for h in (1, 4, 16, 32)}),
    *_printed("regularisation", {"D/P_drop=0.0": "dropout/none", "D/eps_ls=0.0": "smoothing/none"}),
    *_printed("similarity", {"B/d_k=16": "scaled/d_k=16"}),
    *_reaches(),
    *(claim for sweep, said in _SAID.items() for one in said for claim in _said(sweep, *one)),
)


def of_sweep(name: str, scale: str) -> tuple[Claim, ...]:
    """Returns the claims about a sweep that are meant at the scale of that name."""
    return tuple(claim for claim in CLAIMS if claim.sweep == name and scale in claim.scales)
