"""Beam search against exhaustive search, greedy search and a plain NumPy beam search.

The "model" is a random table whose row is a hash of the sentence and of every token so far. The hash travels
in the cache, so that a cache that did not follow its hypothesis would give other probabilities.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from tx.decoding import beam_search, top_k
from tx.errors import UserError
from tx.fields import FIELDS

EOS, PAD, ROWS = 1, 0, 2039
PENALTIES = {"wu2016": lambda length: (5 + length) / 6, "length": lambda length: length}


class HashModel:
    """Logits that depend on the sentence and the whole prefix, in JAX (`search`) and NumPy (`log_probs`)."""

    def __init__(self, vocab, seed=0, eos_bonus=0.0):
        self.table = 1.5 * np.random.default_rng(seed).normal(size=(ROWS, vocab)).astype(np.float32)
        self.table[:, EOS] += eos_bonus
        exact = self.table.astype(np.float64)
        self.exact = exact - np.log(np.exp(exact).sum(axis=-1, keepdims=True))

    def search(self, sentences, limits, width, **options):
        """Runs the search for these sentences (numbers that choose their own part of the table)."""
        run = self.compiled(width, **options)
        found = run(self.table, np.asarray(sentences, np.int32), np.asarray(limits, np.int32))
        return jax.tree.map(np.asarray, found)

    @functools.cache  # noqa: B019 (a model lives as long as its test)
    def compiled(self, width, axis=None, **options):
        axes = None if axis is None else {"state": axis, "steps": -1, "zeros": -1}

        @jax.jit
        def run(table, sentences, limits):
            def step(tokens, index, ancestry, cache, salt):
                before = jnp.take(ancestry, jnp.maximum(index - 1, 0), axis=2)  # where the hypotheses' beginnings stood
                state = jnp.take_along_axis(cache["state"].reshape(before.shape), before, axis=1)
                state = (state * 31 + tokens * 17 + salt[:, None] + index) % ROWS
                # Two leaves that belong to no hypothesis and must stay as they are.
                fixed = jnp.where(cache["steps"] == index, 0.0, jnp.nan) + cache["zeros"].sum()
                kept = state.reshape(cache["state"].shape)
                cache = {"state": kept, "steps": cache["steps"] + 1, "zeros": cache["zeros"]}
                return table[state] + fixed, cache

            rows, ahead = len(sentences), (1,) * (axis or 0)
            cache = {
                "state": jnp.zeros((*ahead, rows, width), jnp.int32),
                "steps": jnp.zeros((), jnp.int32),
                "zeros": jnp.zeros((*ahead, rows + (axis is None), 2)),
            }
            vocab = table.shape[1]
            every = {"beam": width, "vocab_size": vocab, "cache_axes": axes} | options
            return beam_search.search(step, cache, sentences, limits, **every)

        return run

    def log_probs(self, sentence, prefix):
        state = 0
        for index, token in enumerate([PAD, *prefix]):
            state = (state * 31 + token * 17 + sentence + index) % ROWS
        return self.exact[state]

    def score(self, sentence, tokens, length, alpha, penalty="wu2016"):
        total = sum(self.log_probs(sentence, tokens[:i])[token] for i, token in enumerate(tokens))
        return total / PENALTIES[penalty](length) ** alpha


def exhaustive(model, sentence, limit, alpha, penalty):
    """All finished outputs of at most `limit` tokens, as (score, tokens), best first."""
    others = [token for token in range(model.table.shape[1]) if token != EOS]
    texts = [(*p, EOS) for n in range(limit) for p in itertools.product(others, repeat=n)]
    return sorted(((model.score(sentence, t, len(t), alpha, penalty), t) for t in texts), reverse=True)


def greedy(model, sentence, limit):
    tokens = []
    while len(tokens) < limit and EOS not in tokens:
        tokens.append(int(np.argmax(model.log_probs(sentence, tokens))))
    return tuple(tokens)


def plain_beam(model, sentence, limit, width, alpha, eos_rank=None, penalty="wu2016"):
    """The same beam search in plain Python, without stopping early."""
    alive, finished = [(0.0, ())], []
    for _ in range(limit):
        grown = [
            (total + log_prob, (*tokens, token))
            for total, tokens in alive
            for token, log_prob in enumerate(model.log_probs(sentence, tokens))
        ]
        grown = sorted(grown, reverse=True)[: 2 * width]
        ended = [(total / PENALTIES[penalty](len(t)) ** alpha, t) for total, t in grown[:eos_rank] if t[-1] == EOS]
        finished += ended
        finished = sorted(finished, reverse=True)[:width]
        alive = [(total, t) for total, t in grown if t[-1] != EOS][:width]
    return finished or [(total / PENALTIES[penalty](limit) ** alpha, t) for total, t in alive]


def assert_same(found, sentence, expected):
    """One sentence's hypotheses are the expected (score, tokens), and nothing stands beside them."""
    expected = expected[: found.scores.shape[1]]
    for rank, (score, tokens) in enumerate(expected):
        length = found.lengths[sentence, rank]
        assert tuple(found.tokens[sentence, rank, :length]) == tokens
        assert not found.tokens[sentence, rank, length:].any()
        np.testing.assert_allclose(found.scores[sentence, rank], score, rtol=1e-4, atol=1e-5)
    assert (found.lengths[sentence, len(expected) :] == 0).all()
    assert (found.tokens[sentence, len(expected) :] == PAD).all()
    assert (found.scores[sentence, len(expected) :] == -np.inf).all()


@pytest.mark.parametrize(("penalty", "alpha"), [*(("wu2016", alpha) for alpha in (0.0, 0.6, 1.0)), ("length", 1.0)])
@pytest.mark.parametrize(("vocab", "limit", "width"), [(3, 5, 24), (4, 4, 54)])
def test_wide_beam_finds_what_exhaustive_search_finds(vocab, limit, width, penalty, alpha):
    # Wide enough: 2 * width is the number of continuations of all unfinished outputs before the last step.
    assert 2 * width == (vocab - 1) ** (limit - 1) * vocab
    model = HashModel(vocab, eos_bonus=-1.0)
    sentences = range(100, 112)
    limits = [limit - i % 2 for i in range(len(sentences))]
    found = model.search(sentences, limits, width, alpha=alpha, length_penalty=penalty, max_length=limit)
    for i, sentence in enumerate(sentences):
        assert_same(found, i, exhaustive(model, sentence, limits[i], alpha, penalty))


@pytest.mark.parametrize(
    ("width", "alpha", "eos_bonus", "penalty"),
    [
        *((4, 0.6, 0.5, "wu2016"), (4, 0.6, -3.0, "wu2016"), (4, 0.0, 0.5, "wu2016"), (2, 2.0, 0.5, "wu2016")),
        *((3, 1.0, -1.0, "wu2016"), (3, 1.0, -1.0, "length"), (4, 1.0, 0.5, "length"), (2, 0.5, -3.0, "length")),
    ],
)
def test_narrow_beam_equals_plain_beam(width, alpha, eos_bonus, penalty):
    model = HashModel(5, seed=width, eos_bonus=eos_bonus)
    sentences = np.arange(24) * 7
    limits = 1 + np.arange(24) % 9
    options = {"alpha": alpha, "length_penalty": penalty, "max_length": 9}
    every = model.search(sentences, limits, width, **options)
    best = model.search(sentences, limits, width, **options, nbest=1)
    for i, (sentence, limit) in enumerate(zip(sentences, limits, strict=True)):
        expected = plain_beam(model, sentence, limit, width, alpha, penalty=penalty)
        assert_same(every, i, expected)
        assert_same(best, i, expected[:1])


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_eos_may_have_to_rank_high(alpha):
    model, limit = HashModel(5, seed=1, eos_bonus=0.5), 7
    sentences = np.arange(24) * 7
    found = model.search(sentences, [limit] * 24, 4, alpha=alpha, max_length=limit, eos_rank=4)
    expected = [plain_beam(model, sentence, limit, 4, alpha, eos_rank=4) for sentence in sentences]
    assert expected != [plain_beam(model, sentence, limit, 4, alpha) for sentence in sentences]
    for i, hypotheses in enumerate(expected):
        assert_same(found, i, hypotheses)


@pytest.mark.parametrize(("vocab", "alpha"), [(4, 0.6), (4, 0.0), (1000, 0.6)])
def test_beam_one_is_greedy(vocab, alpha):
    model = HashModel(vocab, eos_bonus=np.log(vocab / 8))
    sentences = np.arange(40) * 13
    limits = 1 + np.arange(40) % 12
    found = model.search(sentences, limits, 1, alpha=alpha, max_length=12)
    for i, (sentence, limit) in enumerate(zip(sentences, limits, strict=True)):
        tokens = greedy(model, sentence, limit)
        assert_same(found, i, [(model.score(sentence, tokens, len(tokens), alpha), tokens)])


def test_a_sentence_does_not_depend_on_its_batch():
    model = HashModel(40, eos_bonus=1.0)
    options = {"alpha": 0.6, "max_length": 12}
    sentences, limits = np.arange(8) * 11, np.array([3, 12, 1, 7, 12, 2, 9, 5])
    together = model.search(sentences, limits, 3, **options)
    order = np.random.default_rng(0).permutation(8)
    shuffled = model.search(sentences[order], limits[order], 3, **options)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[order], b), together, shuffled)
    for i in (0, 3):
        alone = model.search(sentences[i : i + 1], limits[i : i + 1], 3, **options)
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[i])
        np.testing.assert_allclose(alone.scores[0], together.scores[i], rtol=1e-6)


@pytest.mark.parametrize(("halvings", "axis"), [(1, None), (3, None), (9, None), (3, 0), (3, 1)])
def test_leaving_out_what_is_over_changes_nothing(halvings, axis):
    model = HashModel(40, eos_bonus=1.0)
    sentences, limits = np.arange(21) * 11, 1 + np.arange(21) * 5 % 12
    limits[4] = 0
    options = {"alpha": 0.6, "max_length": 12}
    wanted = model.search(sentences, limits, 3, **options)
    found = model.search(sentences, limits, 3, halvings=halvings, axis=axis, **options)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_halvings_spare_work():
    """Of 8 sentences 6 end at once: the others go on as a batch of 4 or 2."""
    rows = []

    def step(tokens, index, ancestry, cache, ends):
        jax.debug.callback(lambda _, size=tokens.shape[0]: rows.append(size), index)
        logits = jnp.where((index >= ends)[:, None, None], 20.0, -20.0)
        return jnp.zeros((*tokens.shape, 9)).at[..., EOS].set(jnp.broadcast_to(logits[..., 0], tokens.shape)), cache

    @jax.jit
    def run():
        ends = jnp.array([0, 0, 9, 0, 0, 5, 0, 0])
        options = {"beam": 2, "alpha": 0.6, "vocab_size": 9, "max_length": 12, "nbest": 1, "halvings": 3}
        return beam_search.search(step, {}, ends, jnp.full(8, 12, jnp.int32), **options)

    found = run()
    jax.effects_barrier()
    assert found.lengths[:, 0].tolist() == [1, 1, 10, 1, 1, 6, 1, 1]
    assert sorted(rows, reverse=True) == [8, *[2] * 5, *[1] * 4]


def test_limits_and_unfinished_hypotheses():
    model = HashModel(6, eos_bonus=-30.0)  # EOS is never among the candidates
    limits = np.array([0, 1, 4, 6, 50])
    found = model.search(np.arange(5), limits, 2, alpha=0.6, max_length=6)
    assert found.lengths[:, 0].tolist() == [0, 1, 4, 6, 6]
    assert not found.tokens[0].any()
    for i, limit in enumerate([1, 4, 6, 6], start=1):
        expected = plain_beam(model, i, limit, 2, 0.6)
        assert all(EOS not in tokens for _, tokens in expected)
        assert_same(found, i, expected)


def test_stops_early():
    """A batch is over when its sentences are, not when the longest output that was allowed is reached."""
    steps = []

    def step(tokens, index, ancestry, cache, context):
        jax.debug.callback(steps.append, index)
        end = jnp.where(index == 2, 20.0, -20.0)
        return jnp.zeros((*tokens.shape, 9)).at[..., EOS].set(end), cache

    @jax.jit
    def run():
        limits = jnp.full(3, 60, jnp.int32)
        options = {"beam": 4, "alpha": 0.6, "vocab_size": 9, "max_length": 60, "nbest": 1}
        return beam_search.search(step, {}, (), limits, **options)

    found = run()
    jax.effects_barrier()
    assert found.lengths[:, 0].tolist() == [3, 3, 3]
    assert sorted(int(index) for index in steps) == [0, 1, 2]


def test_columns_beyond_the_vocabulary_are_not_chosen():
    def step(tokens, index, ancestry, cache, context):
        return jnp.zeros((*tokens.shape, 8)).at[..., 6].set(9.0).at[..., EOS].set(1.0), cache

    @jax.jit
    def run():
        return beam_search.search(
            step, {}, (), jnp.full(1, 4, jnp.int32), beam=2, alpha=0.0, vocab_size=5, max_length=4
        )

    found = run()
    assert found.tokens[0, 0].tolist() == [EOS, 0, 0, 0]
    np.testing.assert_allclose(found.scores[0, 0], 1 - np.log(np.e + 4), rtol=1e-6)


@pytest.mark.parametrize("columns", [8, 300, 3001])
@pytest.mark.parametrize("k", [1, 2, 8])
def test_selection_equals_a_stable_sort(columns, k):
    random = np.random.default_rng(columns + k)
    log_probs = np.array([[0.0, -1.5, -np.inf], [-2.0, -2.0, -2.0]] * 10, np.float32)
    # The whole numbers are full of ties, where hypotheses have equal rows also between them.
    whole = np.tile(random.integers(0, 9, size=(20, 1, columns)), (1, 3, 1))
    for x in (random.normal(size=(20, 3, columns)), whole):
        x = x.astype(np.float32)
        values, beam_indices, tokens = jax.jit(top_k.top_k, static_argnums=2)(x, log_probs, k)
        exact = log_probs[:, :, None] + x - np.log(np.exp(x.astype(np.float64)).sum(-1, keepdims=True))
        expected = np.argsort(-exact.reshape(20, -1), axis=-1, kind="stable")[:, :k]
        np.testing.assert_array_equal(np.asarray(beam_indices) * columns + tokens, expected)
        want = np.take_along_axis(exact.reshape(20, -1), expected, axis=-1)
        np.testing.assert_allclose(values, want, rtol=1e-5, atol=1e-5)


def test_every_length_penalty_can_be_chosen():
    assert FIELDS["decode.length_penalty"].takes == tuple(beam_search.LENGTH_PENALTIES) == tuple(PENALTIES)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_an_empty_row_has_a_score(penalty):
    options = {"alpha": 1.0, "length_penalty": penalty, "max_length": 6}
    found = HashModel(5).search([3, 3], [0, 6], 2, **options)
    assert found.scores[0, 0] == 0
    assert_same(found, 1, plain_beam(HashModel(5), 3, 6, 2, 1.0, penalty=penalty))


def test_refuses_what_would_not_be_exact():
    with pytest.raises(UserError, match=r"alpha must be at least 0; got -0\.5"):
        tiny.config(decode__alpha=-0.5)
    with pytest.raises(ValueError, match="between 1 and the beam"):
        HashModel(4).search([0], [3], 2, alpha=0.6, max_length=3, nbest=3)
