"""Figures: the attention of a trained run (as the paper's Figures 3 to 5), its sinusoids, its learning rate.

matplotlib draws them, as PNG and as SVG, without a display.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from tx.errors import UserError, printable
from tx.runs.run_dir import RunDir

KINDS = {"encoder": ("encoder", "self"), "decoder": ("decoder", "self"), "cross": ("decoder", "cross")}
FORMS = ("png", "svg")
_FAINT = 0.02  # weights below are not drawn


def attention(
    weights: np.ndarray, queries: Sequence[str], keys: Sequence[str], heads: Sequence[int], title: str
) -> Figure:
    """Draws lines from each query on the right to the keys on the left, darker for greater weights, a colour a head.

    Args:
      weights: (h, queries, keys).
      queries, keys: the pieces, as people read them; "$" begins no formula.
      heads: which to draw.
      title: above.
    """
    rows = max(len(queries), len(keys))
    figure = Figure(figsize=(6, 1.2 + 0.28 * rows), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["tab10" if len(weights) <= 10 else "hsv"]
    for place, head in enumerate(heads):
        colour = colours(head if len(weights) <= 10 else head / len(weights))
        for i, j in zip(*np.nonzero(weights[head] > _FAINT), strict=True):
            # Heads lie side by side on a query, so that they can be told apart.
            shift = (place - (len(heads) - 1) / 2) * 0.6 / max(len(heads), 2)
            alpha = float(weights[head, i, j])
            axes.plot(
                [0, 1], [j, i + shift], color=colour, alpha=min(1.0, alpha), linewidth=1.6, solid_capstyle="round"
            )
        axes.plot([], [], color=colour, label=f"head {head}")
    for x, pieces, side in ((-0.03, keys, "right"), (1.03, queries, "left")):
        for y, piece in enumerate(pieces):
            axes.text(x, y, piece, ha=side, va="center", fontsize=9, parse_math=False)
    axes.set(xlim=(-0.7, 1.7), ylim=(rows - 0.4, -0.9))
    axes.set_title(title, parse_math=False)
    axes.text(-0.03, -0.8, "attended to", ha="right", va="center", fontsize=8, style="italic")
    axes.text(1.03, -0.8, "by", ha="left", va="center", fontsize=8, style="italic")
    axes.axis("off")
    if len(heads) > 1:
        figure.legend(loc="outside lower center", ncols=min(4, len(heads)), fontsize=8, frameon=False)
    return figure


def heat_maps(
    weights: np.ndarray, queries: Sequence[str], keys: Sequence[str], heads: Sequence[int], title: str
) -> Figure:
    """Draws a heat map of each head, a query a row, darker for greater weights; arguments as of `attention`."""
    columns = min(4, len(heads))
    rows = -(-len(heads) // columns)
    side = 1.0 + 0.17 * max(len(queries), len(keys))
    figure = Figure(figsize=(0.8 + columns * side, 0.8 + rows * side), layout="constrained")
    figure.suptitle(title, parse_math=False)
    every = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, head in zip(every, heads, strict=False):
        image = axes.imshow(weights[head], cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"head {head}", fontsize=9)
        axes.set_xticks(range(len(keys)), keys, rotation=90, fontsize=7, parse_math=False)
        axes.set_yticks(range(len(queries)), queries, fontsize=7, parse_math=False)
        axes.tick_params(length=0)
    for axes in every[len(heads) :]:
        axes.axis("off")
    figure.colorbar(image, ax=every, label="weight", shrink=0.6)
    figure.supxlabel("attended to", fontsize=9)
    figure.supylabel("by", fontsize=9)
    return figure


def sinusoids(table: np.ndarray) -> Figure:
    """Draws a table of position encodings (positions, d_model)."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(table, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    axes.set(xlabel="dimension", ylabel="position", title="Sinusoidal position encoding (section 3.5)")
    figure.colorbar(image)
    return figure


def learning_rate(rates: np.ndarray, warmup: int) -> Figure:
    """Draws the rate of every step, from step 1."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(rates) + 1), rates)
    if warmup < len(rates):
        axes.axvline(warmup, color="grey", linewidth=0.8, linestyle="--", label=f"warm-up: {warmup:,} steps")
        axes.legend(frameon=False)
    axes.set(
        xlabel="step", ylabel="learning rate", title="Learning rate (section 5.3)", xlim=(0, len(rates)), ylim=(0, None)
    )
    return figure


def draw(
    run: RunDir, sentence: str, kind: str, layer: int, heads: Sequence[int] | None, out: pathlib.Path | None
) -> list[pathlib.Path]:
    """Draws attention, twice, sinusoids and learning rate of a trained run; returns the files, in RUN/figures or `out`.

    Args:
      run: its folder.
      sentence: of the source language; the decoder's attention is that of its translation.
      kind: one of KINDS.
      layer: from 0; -1 is the last. A decoder-only model has the kind "decoder" alone, over source and target.
      heads: which; None for all.
      out: where to write.

    Raises UserError for a layer or head that the model has not, a model without attention, and a folder that cannot be
    written.
    """
    import jax.numpy as jnp

    from tx.decoding.trained_model import open_model
    from tx.model.transformer import Transformer
    from tx.runtime import backend, environment

    environment.refuse_other_numbers()
    backend.start()
    config, (params, *_), vocabulary = open_model(run, {})  # the text may be gone, or have grown
    layer, heads = _chosen(config, kind, layer, heads)
    sentence = sentence.strip()  # as the training text is
    _check_sentence(config, vocabulary, sentence)
    weights, queries, keys = _attention(config, params, vocabulary, sentence, kind, layer)
    title = f"{config.name}: {kind}, layer {layer}"
    drawn, name = (weights, queries, keys, heads, title), f"attention-{kind}-layer{layer}"
    made = {name: attention(*drawn), f"{name}-heads": heat_maps(*drawn)}
    if config.model.positions == "sinusoidal":
        position, one_stack = jnp.arange(100)[None], config.model.architecture == "decoder_only"
        table = Transformer(**config.model).apply(
            {"params": params}, position, method=lambda m, x: (m.position if one_stack else m.source_position)(x)
        )
        made["sinusoids"] = sinusoids(np.asarray(table)[0])
    made["learning-rate"] = learning_rate(_rates(config), config.optim.warmup_steps)
    return _write(made, run.path / "figures" if out is None else out)


def _chosen(config, kind, layer, heads):
    """Returns the number of the layer, from 0, and those of the heads; UserError for what the model has not."""
    from tx.model.flops import stack_depths

    depths, count = stack_depths(config.model), config.model.num_heads
    if "encoder" not in depths and kind != "decoder":
        raise UserError(f"{config.name} has one stack over source and target; set --kind=decoder")
    layers = depths[KINDS[kind][0]]
    if not -layers <= layer < layers:
        raise UserError(f"--layer={layer}: {config.name} has layers 0 to {layers - 1}")
    heads = list(range(count)) if heads is None else list(heads)
    if wrong := [head for head in heads if not 0 <= head < count]:
        raise UserError(f"--heads: {config.name} has no head {wrong[0]}, but 0 to {count - 1}")
    return layer % layers, heads


def _check_sentence(config, vocabulary, sentence):
    """Raises UserError for an empty sentence, and for one that is longer than the model can translate."""
    from tx.decoding.limits import describe_long_line, find_long_sources
    from tx.decoding.text import encode

    if not sentence:
        raise UserError("--sentence is empty; give one in the source language")
    if why := describe_long_line(sentence):
        raise UserError(f"--sentence {why}")
    if refused := find_long_sources(config, {1: encode(vocabulary, [sentence])[0]}):
        raise UserError(f"--sentence: {refused[1]}")


def _attention(config, params, vocabulary, sentence, kind, layer):
    """Returns (weights of every head, pieces of the queries, of the keys) over a sentence and its translation."""
    from tx.data.vocabulary import EOS
    from tx.decoding.translator import Translator
    from tx.evaluation.attention_probe import attention_weights

    source = [*vocabulary.encode([sentence])[0], EOS]
    target = [*(int(token) for token in Translator(config, params)([np.array(source, np.int32)])[0]), EOS]
    stack, of = KINDS[kind]
    found = attention_weights(config, params, source, target)
    if (stack, layer, of) not in found:
        raise UserError(f"{config.name} has no attention of kind {kind}: its mixer is {config.model.mixer}")
    pieces = {"source": source, "target": [0, *target[:-1]]}
    pieces = {side: [_readable(vocabulary, token) for token in tokens] for side, tokens in pieces.items()}
    queries = pieces["source" if stack == "encoder" else "target"]
    keys = pieces["source" if (stack, of) != ("decoder", "self") else "target"]
    if config.model.architecture == "decoder_only":
        queries = keys = pieces["source"] + pieces["target"]
    return found[stack, layer, of], queries, keys


def _rates(config):
    """The learning rate of every step; of a long training most are interpolated."""
    from tx.training.optimizer import schedule

    rate, last = schedule(config), config.train.steps
    steps = np.unique(np.linspace(1, last, min(last, 2000)).astype(int))
    return np.interp(np.arange(1, last + 1), steps, [float(rate(step - 1)) for step in steps])


def _readable(vocabulary, token):
    """Returns a piece as people read it; what stands before the first is the start."""
    return "<start>" if token == 0 else printable(vocabulary.piece(token))


def _write(figures, folder):
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            for form in FORMS:
                written.append(folder / f"{name}.{form}")
                figure.savefig(written[-1], dpi=150, metadata={"Date": None} if form == "svg" else None)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    return written
