"""Eight sentence pairs with a vocabulary and tokens, in memory: data that a test can train on."""

import functools

from tx.data import tokenized
from tx.data.corpora import Corpus
from tx.data.vocabulary import Vocabulary

VOCAB_SIZE = 300
TRAIN = (
    ("a red house", "ein rotes Haus"),
    ("the dog sleeps", "der Hund schläft"),
    ("two birds sing", "zwei Vögel singen"),
    ("it is raining", "es regnet"),
    ("she reads a book", "sie liest ein Buch"),
    ("the red dog sings", "der rote Hund singt"),
    ("good morning", "guten Morgen"),
    ("where is the book ?", "wo ist das Buch ?"),
)
VALIDATION = (("a red book", "ein rotes Buch"), ("the dog sings", "der Hund singt"), ("a house", "ein Haus"))


class Records(list):
    """Records as array_record gives them."""

    def __getitems__(self, indices):
        return [self[i] for i in indices]


@functools.cache
def prepared(copies: int = 1) -> tokenized.PreparedData:
    """The pairs as data of a run; training repeats them `copies` times."""
    pairs = {"train": TRAIN * copies, "validation": VALIDATION, "test": TRAIN}
    records = {
        split: Records({"en": en.encode(), "de": de.encode()} for en, de in rows) for split, rows in pairs.items()
    }
    corpus = Corpus("handful", "en", "de", "f", tuple(pairs), lambda: records)
    vocabulary = Vocabulary.learn([side for pair in TRAIN + VALIDATION for side in pair], VOCAB_SIZE)
    splits = {split: tokenized.tokenize(vocabulary, rows) for split, rows in pairs.items()}
    return tokenized.PreparedData(corpus, vocabulary, splits, "t")
