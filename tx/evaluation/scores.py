"""BLEU four ways, chrF and exact match of translations against one reference each.

The June 2017 script (tensor2tensor's get_ende_bleu.sh) replaced Unicode punctuation, tokenised with Moses'
German rules, split hyphenated compounds and ran multi-bleu.perl. It treated the decoded text so and took a
reference tokenised beforehand; here both sides go through the same steps, by the target language's rules.
"""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Sequence

import sacrebleu
import sacremoses

from tx.errors import UserError
from tx.evaluation.tokenizers import bleu_tokenizer, characters, has_spaces, language_code


def score(hypotheses: list[str], references: list[str], target_language: str) -> dict[str, object]:
    """Scores detokenised translations against their references, line by line.

    Args:
      hypotheses, references: plain text, a sentence a string, equally many, at least one; else UserError.
      target_language: a code as `bleu_tokenizer` takes it, e.g. "de"; Moses' rules for English where it has none for
        the language.

    Returns (scores 0 to 100, shares 0 to 1):
      sentences: their number.
      bleu, signature: sacreBLEU, mixed case, in the tokens of `bleu_tokenizer` (13a for most languages; Post 2018),
        and how it was obtained.
      chrf: chrF2 (Popovic 2016).
      bleu_tokenized: multi-bleu on Moses tokens, on characters where words have no spaces between them.
      bleu_compound: the same with hyphenated compounds split, the paper's way.
      bleu_lower: multi-bleu on Moses tokens in lower case, as most of what is published on Multi30k.
      exact_match: share of hypotheses that equal their reference, white space at the ends aside.
      matches: for each sentence whether it does, 1 or 0.
      stats: for each sentence what `bleu` is made of, in its tokens: [hypothesis length, reference length,
        matching n-grams for n = 1..4, n-grams of the hypothesis for n = 1..4].
    """
    if len(hypotheses) != len(references):
        raise UserError(
            f"{len(hypotheses)} translations but {len(references)} references to score them against; "
            "give as many lines of one as of the other"
        )
    if not hypotheses:
        raise UserError("no translations to score; give at least one line")
    # force: no log line about text that looks tokenised; what a model writes early in training may.
    bleu = sacrebleu.BLEU(force=True, tokenize=bleu_tokenizer(target_language))
    matches = [int(h.strip() == r.strip()) for h, r in zip(hypotheses, references, strict=True)]
    corpus = bleu.corpus_score(hypotheses, [references])
    tokenized = [[moses(text, target_language) for text in side] for side in (hypotheses, references)]
    compounds = [[split_compounds(text) for text in side] for side in tokenized]
    lowered = [[text.lower() for text in side] for side in tokenized]
    return {
        "sentences": len(hypotheses),
        "bleu": corpus.score,
        "signature": str(bleu.get_signature()),
        "chrf": sacrebleu.CHRF().corpus_score(hypotheses, [references]).score,
        "bleu_tokenized": multi_bleu(*tokenized),
        "bleu_compound": multi_bleu(*compounds),
        "bleu_lower": multi_bleu(*lowered),
        "exact_match": sum(matches) / len(hypotheses),
        "matches": matches,
        "stats": _stats(hypotheses, references, bleu_tokenizer(target_language)),
    }


def score_apart(hypotheses: list[str], references: list[str], target_language: str) -> dict[str, object]:
    """As `score`, in a process of its own: threads that score at the same time would take turns.

    It is no worker of a `ProcessPoolExecutor`, which stays, with 220 MiB, where this process is killed, and which takes
    down what the others score where it is killed itself. Having imported the main module, with JAX, it gave its first
    scores after 4.4 s instead of 1.7 s, and only the later ones after 0.6 s.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tx.evaluation.scores"],
        input=json.dumps([hypotheses, references, target_language]),
        capture_output=True,
        encoding="utf-8",
        start_new_session=True,  # what interrupts this process is not meant for that one
    )
    if done.returncode:
        raise RuntimeError(f"scoring broke off with status {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def bleu_from_stats(stats: Sequence[Sequence[int]]) -> float:
    """Returns `bleu` (0 to 100) of the sentences whose `stats` these are, e.g. of a resample of them."""
    sys_len, ref_len, *counts = (int(sum(column)) for column in zip(*stats, strict=True))
    return sacrebleu.BLEU.compute_bleu(counts[:4], counts[4:], sys_len, ref_len, smooth_method="exp").score


def sentence_bleu(stats: Sequence[int]) -> float:
    """Returns the sentence BLEU (0 to 100) of one of `stats`, of n-grams that the sentence is long enough for."""
    sys_len, ref_len, *counts = map(int, stats)
    return sacrebleu.BLEU.compute_bleu(
        counts[:4], counts[4:], sys_len, ref_len, smooth_method="exp", effective_order=True
    ).score


def moses(text: str, language: str) -> str:
    """Replaces Unicode punctuation, tokenises and escapes as Moses' scripts do; tokens joined by spaces.

    Of a language without spaces between words the tokens are characters, since Moses has no rules for it.
    """
    if not has_spaces(language):
        return characters(text)
    normalizer, tokenizer = _moses(language_code(language))
    return tokenizer.tokenize(normalizer.replace_unicode_punct(text), return_str=True)


def split_compounds(text: str) -> str:
    """Splits compounds as Perl's s{(\\S)-(\\S)}{$1 ##AT##-##AT## $2}g: without overlaps: "a-b-c" is split once."""
    return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", text)


def multi_bleu(hypotheses: list[str], references: list[str]) -> float:
    """Returns the BLEU (0 to 100) of texts whose tokens are separated by spaces, as multi-bleu.perl: no smoothing."""
    return (
        sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(hypotheses, [references]).score
    )


@functools.cache
def _moses(language):
    return sacremoses.MosesPunctNormalizer(language), sacremoses.MosesTokenizer(language)


def _stats(hypotheses, references, tokenizer):
    # effective_order only silences advice about sentence scores: the counts do not depend on it.
    bleu = sacrebleu.BLEU(force=True, effective_order=True, tokenize=tokenizer)
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        one = bleu.sentence_score(hypothesis, [reference])
        rows.append([one.sys_len, one.ref_len, *one.counts, *one.totals])
    return rows


if __name__ == "__main__":
    json.dump(score(*json.load(sys.stdin)), sys.stdout)
