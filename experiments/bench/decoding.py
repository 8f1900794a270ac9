"""`python -m experiments.bench decode`: beam search with one trained model in several programs."""

import contextlib
import functools
import itertools
import pathlib
import tempfile

from experiments.bench.contestants import bundle
from experiments.bench.harness import rounds
from experiments.bench.harness.contestant import Contestant, cores, need
from experiments.bench.harness.rounds import say
from tx.errors import UserError
from tx.evaluation.tokenizers import bleu_tokenizer
from tx.model.flops import parameter_count
from tx.runs.run_dir import RunDir

OURS = "tx"
BATCHES = (16, 32, 64, 128)  # sentences of a batch, tried by the peers
ALIKE = 0.98  # share of identical translations below which two programs did not do the same work
SHOWN = 20  # differing translations whose scores the result lists

# {name on the command line: (module of the library, label, served class, arguments)}
PEERS = {
    "ctranslate2": (
        "ctranslate2",
        "CTranslate2",
        "contestants.ctranslate2_decoding:Decoding",
        {"compute_type": "float32"},
    ),
    "ctranslate2-int8": (
        "ctranslate2",
        "CTranslate2 int8",
        "contestants.ctranslate2_decoding:Decoding",
        {"compute_type": "int8"},
    ),
    "marian": ("transformers", "Hugging Face Marian", "contestants.marian_decoding:Decoding", {}),
}
_ROUNDED = {"ctranslate2-int8"}  # computes with other numbers, so that its translations differ


def check_peers(names: list[str]) -> None:
    """Raises UserError for a peer that is unknown or not installed."""
    for name in names:
        if name not in PEERS:
            raise UserError(f"--peers: no peer {name!r}; there are {', '.join(PEERS)}")
        need(PEERS[name][0], f"--peers={name}")


def measure_decoding(
    run: pathlib.Path, *, split: str | None, beam: int, peers: list[str], count: int, threads: int, turns: int
) -> dict:
    """Returns the result of `decode`: sentences and tokens per second, memory, agreement and BLEU of every contestant.

    Args:
      run: folder of a trained run.
      split: whose source sentences are translated; None: the first of the run's decode.splits.
      beam: width of the search; there is no length penalty.
      peers: names in PEERS.
      count: sentences, from the first; 0: all.
      threads: of every contestant.
      turns: rounds.

    Raises UserError, before anything is measured, for a peer that is not there and a model that a peer cannot hold.
    """
    cores(threads)
    check_peers(peers)
    from tx.decoding.trained_model import open_run
    from tx.evaluation.translation import split_names

    options = {"beam": beam, "alpha": 0.0} | ({"splits": split} if split else {})
    config, (params, *_), data = open_run(RunDir(run), options)
    for peer in peers:
        bundle.refuse_inexpressible(config.model.to_dict(), PEERS[peer][1])
    bleu_tokenizer(config.data.target)
    split = split_names(config, data)[0]
    ids = data.splits[split]
    sources = _sources(ids, count)
    references = [target for _, target in data.pairs(split)][: len(sources)]
    with tempfile.TemporaryDirectory() as folder:
        bundle.save(pathlib.Path(folder), config.to_dict(), params, sources)
        ours = {"batch_tokens": config.decode.batch_tokens, "eos_rank": beam}
        results, outputs = _contest(folder, ours, peers, threads, turns)
    for label, result in results.items():
        translations = [data.vocabulary.decode(output) for output in outputs[label]]
        result["bleu"] = _bleu(translations, references, config.data.target)
    return {
        "kind": "decode",
        "what": f"{config.name}, {split}",
        "config": config.to_dict(),
        "parameters": parameter_count(config.model),
        "sentences": f"{len(sources)} of {split}",
        "beam": beam,
        "contestants": results,
        "ratios": {
            label: {
                figure: rounds.ratio(results[OURS]["rounds"], one["rounds"], figure)
                for figure in ("sentences_per_s", "tokens_per_s")
                if one["median"][figure]  # a model that has learned too little may end every sentence at once
            }
            for label, one in results.items()
            if label != OURS
        },
    }


def _sources(ids, count):
    """Returns the first sentences of a split's source, all where there are no more or none are counted."""
    return [ids.source(i) for i in range(min(count or len(ids), len(ids)))]


def _contest(folder, ours, peers, threads, turns):
    """Returns what was measured of every contestant, and its translations, as tokens: two dicts by label.

    Args:
      folder: where the model and the sentences are.
      ours: the settings of our decoding.
      peers, threads, turns: as of `measure_decoding`.
    """
    contestants, settings, tried = {}, {OURS: ours}, {}
    with contextlib.ExitStack() as stack:
        contestants[OURS] = stack.enter_context(
            Contestant(OURS, "contestants.tx_decoding:Decoding", {"folder": folder}, threads)
        )
        first = {OURS: contestants[OURS]("translate")}
        for peer in peers:
            label = PEERS[peer][1]
            contestants[label], settings[label], tried[label] = _best(stack, peer, folder, threads)
            first[label] = contestants[label]("translate")
        measured = rounds.take_turns(
            {label: functools.partial(one, "translate") for label, one in contestants.items()}, turns
        )
        memory = {label: one("memory") for label, one in contestants.items()}
        outputs = {label: one("outputs") for label, one in contestants.items()}
        agreement = {
            label: _agreement(contestants[OURS], outputs[OURS], theirs)
            for label, theirs in outputs.items()
            if label != OURS
        }
    results = {}
    for label, taken in measured.items():
        each = [
            one | {"sentences_per_s": one["sentences"] / one["seconds"], "tokens_per_s": one["tokens"] / one["seconds"]}
            for one in taken
        ]
        results[label] = {
            "settings": settings[label],
            "tried": tried.get(label, []),
            "rounds": each,
            "median": rounds.medians(each) | {"first_s": first[label]["seconds"]} | memory[label],
        } | agreement.get(label, {})
    return results, outputs


def unlike(result: dict) -> list[str]:
    """Returns a line for every peer that computes with our numbers and yet translates otherwise."""
    exact = {PEERS[name][1] for name in PEERS if name not in _ROUNDED}
    return [
        f"{label}: {one['identical']:.1%} of the translations are ours, less than {ALIKE:.0%}"
        for label, one in result["contestants"].items()
        if label in exact and one["identical"] < ALIKE
    ]


def _best(stack, peer, folder, threads):
    """Tries a peer's settings; returns (the contestant at its fastest setting, that setting, all that were tried)."""
    _, label, served, arguments = PEERS[peer]
    trials = []

    def open_one(**more):
        return Contestant(label, served, {"folder": folder, "threads": threads} | arguments | more, threads)

    def attempt(one, processwide, **setting):
        one("setting", **setting)
        one("translate")
        ran = one("translate")
        trials.append(processwide | setting | {"sentences_per_s": ran["sentences"] / ran["seconds"]})
        say(f"{label} {trials[-1]}")

    if peer.startswith("ctranslate2"):
        with open_one() as one:
            for inter, batch in itertools.product((n for n in range(1, threads + 1) if threads % n == 0), BATCHES):
                attempt(one, {}, inter=inter, batch=batch)
    else:
        for keep in (False, True):
            with open_one(keep_memory=keep) as one:
                for batch in BATCHES:
                    attempt(one, {"keep_memory": keep}, batch=batch)
    best = max(trials, key=lambda trial: trial["sentences_per_s"])
    chosen = {key: value for key, value in best.items() if key != "sentences_per_s"}
    processwide = {key: chosen[key] for key in ("keep_memory",) if key in chosen}
    one = stack.enter_context(open_one(**processwide))
    one("setting", **{key: value for key, value in chosen.items() if key not in processwide})
    return one, arguments | chosen, trials


def _agreement(ours, our_outputs, outputs):
    """Returns the share of identical translations, and where they differ what our model thinks of either."""
    differing = [i for i, (one, other) in enumerate(zip(our_outputs, outputs, strict=True)) if one != other]
    scores = [
        ours("scores", numbers=differing, outputs=[some[i] for i in differing]) for some in (our_outputs, outputs)
    ]
    pairs = list(zip(differing, *scores, strict=True))
    return {
        "identical": 1 - len(differing) / len(outputs),
        "differing": {
            "ours_better": sum(one > other for _, one, other in pairs),
            "theirs_better": sum(other > one for _, one, other in pairs),
            "greatest_gap_nats": max((abs(one - other) for _, one, other in pairs), default=0.0),
            "first": [{"sentence": i, "ours": one, "theirs": other} for i, one, other in pairs[:SHOWN]],
        },
    }


def _bleu(hypotheses, references, language):
    import sacrebleu

    return sacrebleu.BLEU(force=True, tokenize=bleu_tokenizer(language)).corpus_score(hypotheses, [references]).score
