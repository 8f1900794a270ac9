"""Translation in batches: every sentence once and in order, whatever the batch; greedy against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from tx.decoding import beam_search, translator
from tx.decoding.translator import Translator, length_buckets
from tx.errors import UserError
from tx.runtime import backend

EOS = 1
EXTRA = 4
SEED = 6  # of a random model that ends some sentences early and some not, and differs between them
LENGTHS = (9, 3, 14, 5, 7, 12, 3, 8)  # of the sources, end of sentence included: shapes 8 and 16


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(1, 3000))
def test_batches_hold_every_sentence_once(lengths, batch_tokens):
    found = length_buckets(lengths, batch_tokens)
    assert sorted(i for *_, members in found for i in members) == list(range(len(lengths)))
    assert len({length for length, *_ in found}) <= backend.SHAPES
    for length, rows, members in found:
        assert 1 <= len(members) <= rows
        assert length % 8 == 0
        assert all(lengths[i] <= length for i in members)
        assert 1 <= len(members) <= max(1, batch_tokens // length)
        assert len(members) * length <= max(batch_tokens, length)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 70), max_size=60), st.integers(1, 3000))
def test_translations_come_in_the_order_of_their_sentences(lengths, batch_tokens):
    def backwards(params, src, *, length, halvings):
        return src[:, ::-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translator, "_compiled", lambda program, eos_rank: backwards)
        translate = Translator(tiny.config(decode__batch_tokens=batch_tokens), {})
    sources = [np.array([*range(100 * i + 2, 100 * i + 1 + n), EOS], np.int32) for i, n in enumerate(lengths)]
    assert [out.tolist() for out in translate(sources)] == [source[-2::-1].tolist() for source in sources]


def test_batches_share_shapes_evenly_and_take_the_shortest_that_fits():
    lengths = list(range(1, 101)) * 10
    found = length_buckets(lengths, 1000)
    assert sorted({length for length, *_ in found}) == [32, 56, 80, 104]
    for length, _, members in found:
        shorter = [other for other, *_ in found if other < length]
        assert all(lengths[i] > max(shorter, default=0) for i in members)


def test_no_sentences_no_batches():
    assert length_buckets([], 100) == []


def test_there_are_as_few_shapes_as_asked_for():
    assert sorted({length for length, *_ in length_buckets(list(range(1, 101)) * 10, 1000, 2)}) == [56, 104]


@pytest.fixture(scope="module")
def model():
    """(config, module, params, sources) of a random model."""
    config = tiny.config(model__num_layers=1, decode__extra_length=EXTRA, decode__batch_tokens=64, decode__beam=3)
    module, params = tiny.init(config, seed=SEED)
    params["embedding"] = params["embedding"].at[0].set(0.0)  # padding is never the best of 40 tokens
    rng = np.random.default_rng(0)
    sources = [tiny.sentences(rng, [length])[0] for length in LENGTHS]
    return config, module, params, sources


@pytest.fixture(scope="module")
def together(model):
    config, _, params, sources = model
    translator = Translator(config, params)
    return translator, translator(sources)


def same(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_translation_depends_on_its_sentence_alone(model, together):
    _, _, _, sources = model
    translator, outputs = together
    same(outputs, [translator([source])[0] for source in sources])
    order = np.random.default_rng(1).permutation(len(sources))
    same([outputs[i] for i in order], translator([sources[i] for i in order]))
    assert len({tuple(output) for output in outputs}) > len(outputs) // 2  # else little was compared


def test_a_translation_does_not_depend_on_the_size_of_batches(model, together):
    config, _, params, sources = model
    small = config.copy_and_resolve_references()
    small.decode.batch_tokens = 16  # one row of 16, or two of 8
    same(together[1], Translator(small, params)(sources))


def test_the_length_penalty_is_the_configuration_s(model):
    config, _, params, sources = model
    asked = [config.copy_and_resolve_references() for _ in range(2)]
    for one, penalty in zip(asked, ("wu2016", "length"), strict=True):
        one.decode.alpha, one.decode.length_penalty = 1.0, penalty
    usual, by_length = (Translator(one, params)(sources) for one in asked)
    lengths = [(len(one), len(other)) for one, other in zip(usual, by_length, strict=True)]
    assert any(one < other for one, other in lengths)  # which falls steeper with length favours long ones
    assert not any(one > other for one, other in lengths)


def test_many_sentences_and_several_workers_translate_the_same(model, together, monkeypatch):
    config, _, params, sources = model
    monkeypatch.setattr(backend, "MANY", 4)
    monkeypatch.setattr(translator.determinism, "threads", lambda: 2)
    same(together[1], Translator(config, params)(sources))


def test_an_accelerator_translates_the_same_with_fewer_shapes(model, together, monkeypatch):
    config, _, params, sources = model
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    asked = []
    monkeypatch.setattr(translator, "length_buckets", lambda *a: asked.append(a[2]) or length_buckets(*a))
    same(together[1], Translator(config, params)(sources))
    assert asked == [backend.FEW]


def test_translations_end_within_the_limit(model, together):
    _, _, _, sources = model
    lengths = [len(output) for output in together[1]]
    limits = [len(source) - 1 + EXTRA for source in sources]  # the source's end of sentence does not count
    assert all(length <= limit for length, limit in zip(lengths, limits, strict=True))
    assert any(length == limit for length, limit in zip(lengths, limits, strict=True))
    assert any(length < limit - 1 for length, limit in zip(lengths, limits, strict=True))
    assert not any(set(output) & {0, EOS} for output in map(list, together[1]))


def test_an_empty_row_is_over_before_it_begins(model, monkeypatch):
    """Else a batch that is not full is searched until 0 + decode.extra_length, whenever its sentences end."""
    config, _, params, _ = model
    seen = []

    def search(step, cache, context, limits, **_):
        seen.append(limits)
        return beam_search.Hypotheses(np.zeros((3, 1, 16), np.int32), None, None)

    monkeypatch.setattr(beam_search, "search", search)
    src = np.zeros((3, 8), np.int32)
    src[0, :5], src[2, 0] = [7, 8, 9, 7, EOS], EOS  # the last is a sentence without a word
    translator._search(config, None, params, jnp.asarray(src), length=16, halvings=0)
    assert [limit.tolist() for limit in seen] == [[4 + EXTRA, 0, EXTRA]]


def test_beam_1_is_the_greedy_loop(model):
    config, module, params, sources = model
    greedy = config.copy_and_resolve_references()
    greedy.decode.beam = 1
    apply = jax.jit(lambda src, tgt: module.apply({"params": params}, src, tgt))
    width = max(LENGTHS) + EXTRA
    wanted, ended = [], 0
    for source in sources:
        src = np.zeros((1, max(LENGTHS)), np.int32)
        src[0, : len(source)] = source
        output = []
        while len(output) < len(source) - 1 + EXTRA:
            tgt = np.full((1, width), 3, np.int32)  # what follows is not seen
            tgt[0, : len(output)] = output
            output.append(int(apply(src, tgt)[0, len(output)].argmax()))
            assert output[-1] != 0  # teacher forcing would take it for padding
            if output[-1] == EOS:
                output.pop()
                ended += 1
                break
        wanted.append(np.array(output, np.int32))
    assert 0 < ended < len(sources)
    same(Translator(greedy, params)(sources), wanted)


def test_nothing_to_translate(model):
    config, _, params, _ = model
    assert Translator(config, params)([]) == []


def test_learned_positions_refuse_an_input_too_long():
    config = tiny.config(model__positions="learned", model__max_positions=12, decode__extra_length=2)
    _, params = tiny.init(config)
    sources = [np.array([5] * 10 + [EOS], np.int32)]
    with pytest.raises(UserError) as caught:
        Translator(config, params)(sources)
    assert "18 tokens is longer than the learned position table of 12 rows" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["attention", "recurrent", "convolution"])
def test_leaving_out_what_is_over_changes_no_translation(model, monkeypatch, mixer):
    """What a mixer keeps of earlier positions is cut to the sentences that go on, as all else is."""
    sources = model[3]
    sizes = {"model__num_layers": 1, "decode__extra_length": EXTRA, "decode__batch_tokens": 128, "decode__beam": 3}
    config = tiny.config(model__mixer=mixer, **sizes)
    _, params = tiny.init(config, seed=SEED)
    found = []
    for halvings in (0, 2):
        monkeypatch.setattr(backend, "decoding_halvings", lambda _, halvings=halvings: halvings)
        found.append([output.tolist() for output in Translator(config, params)(sources)])
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder_only"])
@pytest.mark.parametrize("beam", [1, 3])
def test_kernels_of_a_search_change_no_translation(model, monkeypatch, architecture, beam):
    sizes = {"model__num_layers": 1, "decode__extra_length": EXTRA, "decode__batch_tokens": 128, "decode__beam": beam}
    monkeypatch.setattr(backend, "decoding_block", lambda _, length: length)  # as of a GPU
    monkeypatch.setattr(backend, "decodes_by_kernel", lambda kernels: kernels == "pallas")
    found = []
    for kernels in ("xla", "pallas"):
        config = tiny.config(model__architecture=architecture, model__kernels=kernels, **sizes)
        _, params = tiny.init(config, seed=8)  # which ends some outputs early, whatever the architecture
        found.append([output.tolist() for output in Translator(config, params)(model[3])])
    assert any(found[0])
    assert found[0] == found[1]
