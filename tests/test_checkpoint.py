"""Checkpoints: they get checksums when they are whole, and are never opened when these do not match."""

import functools
import random
import shutil
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from saved import arrays, checkpoint

from launch import local
from tx import files
from tx.errors import UserError
from tx.runs.checkpoint_files import ALWAYS, APART
from tx.runs.checkpoints import Checkpoint, Checkpoints
from tx.runs.run_dir import RunDir
from tx.training.experiment import _refuse_what_cannot_train
from tx.training.step import init_state

SEED = 20261123  # of the places that are damaged
PLACES = 50


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder of two checkpoints, their state)."""
    folder, state = tmp_path_factory.mktemp("run") / "checkpoints", init_state(tiny.config(model__num_layers=1))
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(checkpoint(state, step))
    checkpoints.close()
    return folder, state


def test_what_is_saved_has_checksums_and_comes_back(saved):
    folder, state = saved
    checkpoints = Checkpoints(folder)
    assert checkpoints.steps() == [1, 2]
    assert checkpoints.verify(1)
    assert checkpoints.verify(2)
    comes_back(checkpoints, state)
    checkpoints.close()


def comes_back(checkpoints, state):
    """Asserts that the checkpoint of step 2 holds what was saved."""
    like = jax.eval_shape(lambda: state)
    restored = checkpoints.restore(like.params, like.opt_state, 2)
    assert restored.data == {"epoch": 2}
    assert restored.progress == checkpoint(state, 2).progress
    for one, two in zip(jax.tree.leaves(arrays(restored)), jax.tree.leaves(arrays(state)), strict=True):
        np.testing.assert_array_equal(one, two)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in APART)


def corruption(folder):
    return files.find_corruption(folder, apart=APART)


@pytest.mark.parametrize("content", [b"", b"\xff", b'{"item_handlers": {}}', b"garbage", None])
@pytest.mark.parametrize("name", APART)
def test_a_file_apart_does_no_harm(saved, tmp_path, name, content):
    folder, state = saved
    shutil.copytree(folder / "2", tmp_path / "2")
    file = tmp_path / "2" / name
    file.write_bytes(content or b"")
    if content is None:
        file.unlink()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [2]
    assert checkpoints.verify(2)
    comes_back(checkpoints, state)
    checkpoints.close()


def damaged(path, rng):
    """Flips a bit of a file or cuts its end off, somewhere; returns what was done."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        path.write_bytes(content[:place])
        return f"{path.name} cut at {place}"
    content[place] ^= 1 << (bit := rng.randrange(8))
    path.write_bytes(content)
    return f"{path.name} byte {place} bit {bit}"


def test_whatever_is_flipped_or_cut_off_is_found(saved, tmp_path):
    """Places are drawn over all bytes, and as often over all files, of which many are small."""
    folder, _ = saved
    rng, missed = random.Random(SEED), []
    for trial in range(PLACES):
        copy = tmp_path / str(trial)
        shutil.copytree(folder / "2", copy)
        assert corruption(copy) == ""
        files = [path for path in files_of(copy) if path.stat().st_size]
        weights = [path.stat().st_size for path in files] if trial % 2 else None
        done = damaged(rng.choices(files, weights)[0], rng)
        if not corruption(copy):
            missed.append(done)
        shutil.rmtree(copy)
    assert missed == []


def test_files_that_are_missing_or_do_not_belong(saved, tmp_path):
    copy = tmp_path / "2"
    shutil.copytree(saved[0] / "2", copy)
    (copy / "more").write_text("")
    assert corruption(copy) == "more does not belong to it"
    (copy / "more").unlink()
    lost = files_of(copy)[0]
    lost.unlink()
    assert corruption(copy) == f"{lost.relative_to(copy).as_posix()} is missing"
    (copy / files.NAME).unlink()
    assert corruption(copy) == "it has no digests.json: writing it was cut off"
    assert corruption(tmp_path / "nowhere") == "it has no digests.json: writing it was cut off"


def test_one_that_is_damaged_is_set_aside_with_a_warning(saved, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved[0], folder)
    (folder / "2" / files.NAME).unlink()  # killed between writing a checkpoint and its checksums
    checkpoints = Checkpoints(folder)
    like = jax.eval_shape(lambda: saved[1].params)
    with pytest.raises(UserError, match=r"checkpoints/2 is damaged \(it has no digests.json: .*\); train again"):
        checkpoints.average(like, 1)
    assert checkpoints.steps() == [1, 2]
    before, aside = (tmp_path / "damaged" / name for name in ("2.1", "2.2"))
    (before / "params").mkdir(parents=True)  # set aside by another process, or on another host
    assert not checkpoints.verify(2)
    assert set((tmp_path / "damaged").iterdir()) == {before, aside}
    assert f"checkpoint 2 is damaged (it has no digests.json: writing it was cut off); set aside as {aside}" in (
        capsys.readouterr().err
    )
    assert checkpoints.steps() == [1]
    checkpoints.save(checkpoint(saved[1], 2))
    checkpoints.close()
    assert corruption(folder / "2") == ""


def test_parameters_are_read_without_the_optimizer_state(saved, monkeypatch):
    """And are the mean of those of several steps."""
    folder, state = saved
    checkpoints, read = Checkpoints(folder), []
    restore = checkpoints._manager.restore

    def noted(step, args):
        read.append((step, sorted(args.keys())))
        return restore(step, args=args)

    monkeypatch.setattr(checkpoints._manager, "restore", noted)
    mean = checkpoints.average(jax.eval_shape(lambda: state.params), 2)
    checkpoints.close()
    assert read == [(1, ["params"]), (2, ["params"])]
    for one, two in zip(jax.tree.leaves(mean), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def test_a_mean_is_made_with_one_checkpoint_in_memory_at_a_time(tmp_path, monkeypatch):
    """To the bits of float32 sums in order of the steps, from 0, which makes -0.0 of all of them 0.0."""
    rng = np.random.default_rng(SEED)
    values = [
        {"matrix": rng.normal(size=(40, 30)) * 10.0 ** rng.integers(-6, 6, (40, 30)), "zeros": np.full(3, -0.0)}
        for _ in range(6)
    ]
    values = jax.tree.map(np.float32, values)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step, params in enumerate(values, 1):
        params = jax.tree.map(jnp.array, params)
        checkpoints.save(Checkpoint(params, {"count": jnp.int32(step)}, {}, {"step": step}))
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    read, earlier, alive = Checkpoints._arrays, [], []

    def noted(self, step, **like):
        alive.append(sum(any(leaf() is not None for leaf in tree) for tree in earlier))
        found = read(self, step, **like)
        earlier.append([weakref.ref(leaf) for leaf in jax.tree.leaves(found)])
        return found

    monkeypatch.setattr(Checkpoints, "_arrays", noted)
    mean, last = (checkpoints.average(jax.eval_shape(lambda: values[0]), count) for count in (6, 1))
    checkpoints.close()
    assert len(alive) == 7
    assert max(alive) <= 2
    for name, leaf in mean.items():
        total = functools.reduce(np.add, [params[name] for params in values], np.float32(0))
        assert leaf.dtype == np.float32
        # XLA multiplies by the reciprocal, so NumPy's quotient may have another last bit.
        assert np.asarray(leaf).tobytes() == np.asarray(jnp.array(total) / 6).tobytes()
        np.testing.assert_allclose(leaf, total / np.float32(6), rtol=3e-7)
        assert np.asarray(last[name]).tobytes() == values[-1][name].tobytes()


@pytest.mark.parametrize("item", ALWAYS)
def test_what_other_code_wrote_is_refused_in_a_line(saved, tmp_path, capsys, item):
    """Its checksums match, but it is of other items: the state was one once."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved[0] / "2", folder / "2")
    (folder / "2" / item).rename(folder / "2" / "state")
    files.write_checksums(folder / "2", apart=APART)
    checkpoints = Checkpoints(folder)
    with pytest.raises(UserError, match=rf"checkpoints/2 is damaged \(it has no {item}: other code wrote it\); train"):
        checkpoints.best_of(2)
    assert not checkpoints.verify(2)
    assert checkpoints.steps() == []
    checkpoints.close()
    assert f"checkpoint 2 is damaged (it has no {item}: other code wrote it); set aside" in capsys.readouterr().err


def test_a_folders_name_is_no_pattern(saved, tmp_path):
    """It was: below "br[1]" no checkpoint could be read, and below "st*r" it was mixed with those of "star"."""
    _, state = saved
    other = jax.tree.map(lambda leaf: leaf + 1 if leaf.ndim else leaf, state)
    for name, values in (("star", other), ("st*r", state)):
        checkpoints = Checkpoints(tmp_path / "br[1]" / name / "q?x{a,b}[!c]")
        checkpoints.save(checkpoint(values, 2))
        checkpoints.close()
    checkpoints = Checkpoints(tmp_path / "br[1]" / "st*r" / "q?x{a,b}[!c]")
    comes_back(checkpoints, state)
    checkpoints.close()


def test_the_first_of_a_run_is_read_back_at_once(saved, tmp_path, monkeypatch):
    folder, state = saved
    read, asked = Checkpoints._read, []

    def flipped(self, step, items):
        asked.append(step)
        found = read(self, step, items)
        leaf = jax.tree.leaves(found["params"])[-1]
        leaf.view(np.uint8).flat[0] ^= 1
        return found

    monkeypatch.setattr(Checkpoints, "_read", flipped)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(UserError, match=r"checkpoints/1 cannot be read back \(params is not what was saved\); choose"):
        checkpoints.save(checkpoint(state, 1))
    checkpoints.close()
    shutil.copytree(folder / "2", tmp_path / "again" / "2")
    checkpoints = Checkpoints(tmp_path / "again")  # of a run that goes on nothing is tried
    checkpoints.save(checkpoint(state, 3))
    checkpoints.close()
    assert asked == [1]


@pytest.mark.parametrize("name", ["a\\b", "gs:", "\udce4"])
def test_a_name_that_cannot_work_is_refused_at_once(tmp_path, capsys, name):
    folder = tmp_path / name / "work"
    with pytest.raises(UserError):
        Checkpoints(folder)
    with pytest.raises(UserError):
        _refuse_what_cannot_train([(tiny.config(), RunDir(folder))])
    with pytest.raises(SystemExit) as ended:
        local.main(["table3/base@smoke", f"--workdir={folder}"], prepare=lambda runs: pytest.fail("it began"))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
