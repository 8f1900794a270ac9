"""Generated corpus of recall over a distance: a value, fillers, and at the end the value again.

The target is "M c a h ? M": a value in capitals, fillers in small letters drawn at random, a mark, the value. The
source is the same word each time, so that attention to it cannot help: what is asked for at the mark has to come
through the decoder's own mixing of positions, over a distance that the number of fillers sets.
"""

import random

VALUES = "ABCDEFGHIJKLMNOP"
FILLERS = "abcdefgh"
MARK = "?"
SOURCE = "recall"
# Positions from the value to the mark: each power of two has the same share of a split.
DISTANCES = (2, 4, 8, 16, 32, 64)
SENTENCES = {"train": 500, "validation": 30, "test": 50}  # of each distance
SEED = 2017


def generate(source: str = "", target: str = "") -> dict[str, list[tuple[str, str]]]:
    """Returns {"train", "validation", "test": [(source sentence, target sentence), ...]}, the same on every machine.

    Its words are of no language, so it is the same for every pair.
    """
    del source, target
    splits = {}
    for offset, (split, each) in enumerate(SENTENCES.items()):
        rng = random.Random(SEED + offset)
        splits[split] = [(SOURCE, _target(distance, rng)) for _ in range(each) for distance in DISTANCES]
    return splits


def target_tokens(distance: int) -> int:
    """Returns how many words a target of that distance has, and one more for the end of sentence."""
    return distance + 3


def _target(distance, rng):
    value, *fillers = (_choose(rng, words) for words in (VALUES, *[FILLERS] * (distance - 1)))
    return " ".join([value, *fillers, MARK, value])


def _choose(rng, words):
    """Returns one of the words; from `random()` alone, whose stream is the same in every Python version."""
    return words[int(rng.random() * len(words))]
