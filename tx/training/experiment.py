"""Experiments: a group of runs from the claim of their folders to their results."""

import concurrent.futures
import contextlib
import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from tx.data import tokenized
from tx.decoding.limits import check_corpus
from tx.errors import UserError
from tx.evaluation.perplexity import described_dev, measure_dev
from tx.evaluation.translation import split_names
from tx.files import to_json, write_atomically
from tx.runs import provenance
from tx.runs.identity import Identity, set_aside_others
from tx.runs.lease import Lease
from tx.runs.result import FORMAT
from tx.runs.run_dir import refuse_unusable_name
from tx.runs.selection import Selected, select_parameters
from tx.runs.state import Run, is_done, recorded
from tx.runtime import backend, distributed
from tx.runtime.signals import Interrupted, Interruption
from tx.runtime.trees import member
from tx.training.checks import check_config
from tx.training.common_start import split_by_start
from tx.training.loop import train
from tx.training.outcome import described, finish, thinned_curve
from tx.training.sharding import Layout
from tx.training.stacking import compile_key
from tx.training.step import TrainState
from tx.training.training_run import TrainingRun


def claim_runs(runs: Sequence[Run], held: contextlib.ExitStack) -> tuple[list[TrainingRun], list[dict]]:
    """Claims the folders of the runs that are not done, after checks of all of them.

    Args:
      runs: of one `compile_key`.
      held: releases the folders when it closes.

    Returns (the members of the group; of each, what its config.json and result.json begin with: name, seed,
    configuration, code, versions, device, data). Raises UserError for runs that cannot train side by side, or not
    here; Held where another process makes one of them.
    """
    config = runs[0][0]
    origin = provenance.describe(config)
    _refuse_what_cannot_train(runs)
    done = [distributed.broadcast_value(functools.partial(is_done, other, run)) for other, run in runs]
    pending = [pair for pair, over in zip(runs, done, strict=True) if not over]
    if not pending:
        return [], []
    data = tokenized.prepare(config.data, config.model.vocab_size)
    # What evaluating or translating could not take is refused before the training, not after it.
    check_corpus(config, data, split_names(config, data))
    origin["data"] = described(data)
    members, heads = [], []
    for other, run in pending:
        distributed.broadcast_value(run.create)
        lease = Lease(run.path)
        distributed.broadcast_value(functools.partial(_enter, lease, held))
        if distributed.broadcast_value(run.result.exists):  # another process has just done it
            continue
        distributed.broadcast_value(run.tidy)
        identity = Identity.of(other, origin)
        distributed.broadcast_value(functools.partial(set_aside_others, run, identity))
        head = {"format": FORMAT, "name": other.name, "seed": other.train.seed, "config": other.to_dict(), **origin}
        write_atomically(run.config, to_json(head))
        write_atomically(run.vocabulary, data.vocabulary.model)  # who uses the model needs no text then
        run.error.unlink(missing_ok=True)
        heads.append(head)
        holding = lease if distributed.is_primary() else None
        members.append(TrainingRun(tokenized.sized(other, data), run, data, holding, identity))
    return members, heads


def _refuse_what_cannot_train(runs):
    """Raises UserError for runs that cannot train side by side, or not here."""
    config = runs[0][0]
    wanted = compile_key(config)
    for other, run in runs:
        theirs = compile_key(other)
        if differing := [field for field in wanted | theirs if wanted.get(field) != theirs.get(field)]:
            raise UserError(f"{run.path} cannot train beside {runs[0][1].path}: {', '.join(differing)} differ")
    for _, run in runs:
        refuse_unusable_name(run.path.resolve())
    if len({run.path.resolve() for _, run in runs}) < len(runs):
        raise UserError("two of the runs have one --workdir; give each its own")
    # What such runs have not in common is of no matter to the checks below.
    check_config(config)
    layout = Layout(config)  # refuses what these devices cannot do
    if not layout.one and (len(runs) > 1 or config.train.steps_per_dispatch > 1):
        raise UserError(
            "runs side by side, and several steps a dispatch, need one device: parallel.devices=1, mode jit"
        )
    if config.model.kernels == "pallas" and not (layout.one and backend.name() == "gpu"):
        raise UserError(
            f"model.kernels=pallas needs one NVIDIA GPU; here are {len(layout.devices)} of {backend.name()}: set it to "
            "xla, or parallel.devices=1"
        )


def _enter(lease, held):
    held.enter_context(lease)


class Chosen(NamedTuple):
    """Parameters that are translated with, and what result.json says of them as "dev"."""

    params: Any
    dev: dict


def select_all(members: Sequence[TrainingRun], state: TrainState) -> list[Chosen]:
    """Chooses the parameters of each member, and measures their dev perplexity, with the source and without it.

    Of several processes every one must call it. A member that was lost gets its last ones.

    Args:
      members: of a group that is trained.
      state: after the last step, a `stack` of the members'.
    """
    config, data, count = members[0].config, members[0].data, len(members)
    found = []
    for i, m in enumerate(members):
        last = member(state, i, count).eval_params
        found.append(Selected(last, 0, "last") if m.lost else select_parameters(m.config, m.run, last))
    devs = measure_dev(config, data, [one.params for one in found])
    return [Chosen(one.params, described_dev(one, dev)) for one, dev in zip(found, devs, strict=True)]


def finish_all(
    members: Sequence[TrainingRun], heads: Sequence[dict], chosen: Sequence[Chosen], summaries: Sequence[dict | None]
) -> None:
    """Translates, scores and writes the result of each member; while one is translated, others are scored.

    Where one fails the others go on; the first error is raised when all are through.

    Args:
      members, heads: as `claim_runs` gave them.
      chosen: the parameters of each, as `select_all` gave them.
      summaries: of each one's training, as `train` gave them; None for one that was lost.
    """
    count = len(members)

    def finish_one(i):
        m = members[i]
        if m.lost:
            return m.lost
        try:
            with recorded([(m.config, m.run)]):
                _finish(m, chosen[i], heads[i], summaries[i], apart=count > 1)
        except Exception as error:
            return error

    if count == 1:
        errors = [finish_one(0)]
    else:
        # Without `with`: where this thread is interrupted, it does not wait for translations that are under way.
        pool = concurrent.futures.ThreadPoolExecutor(min(count, os.cpu_count() or 1))
        errors = list(pool.map(finish_one, range(count)))
        pool.shutdown()
    if found := list(filter(None, errors)):
        raise found[0]


def _finish(m: TrainingRun, chosen: Chosen, head: dict, summary: dict, apart: bool) -> None:
    """Writes the result of a member; `apart` as `finish` takes it."""
    seconds, devs, origins = (summary.pop(name) for name in ("seconds", "dev", "origins"))
    trained = [origin for origin in origins if origin["step"] <= m.config.train.steps][-1]
    # Of a stacked run, the training's seconds are its share of the group's.
    timing, stacked = {"target_tokens_per_s": summary["target_tokens"] / seconds}, trained["program"]["side_by_side"]
    timing |= {"stacked": stacked} if stacked > 1 else {}
    known = head | {"train": summary, "dev": chosen.dev, "curve": thinned_curve(m.run), "timing": timing}
    if len(origins) > 1:
        known["origins"] = origins
    if trained is not origins[-1]:  # this process has trained nothing
        known.pop("environment", None)
        known |= {name: trained[name] for name in provenance.DECIDING if name in trained}
    known |= {f"dev_{which}": dev for which, dev in devs.items()}
    finish(m.config, m.run, m.data, chosen.params, known, seconds, m.set_status, apart)


def run_experiments(runs: Sequence[Run], interruption: Interruption | None = None) -> None:
    """Trains runs side by side, evaluates each and writes every file; what is done already is not done again.

    Those that cannot go on from one step train one after the other (`split_by_start`). Where one fails after training,
    or those that train together fail, the others go on; the first error is raised when all are through. Raises
    UserError for runs that cannot train side by side.
    """
    with contextlib.ExitStack() as held:
        with recorded(runs):
            members, heads = claim_runs(runs, held)
            groups = split_by_start(members) if members else []
        errors = []
        for group in groups:
            try:
                _run_group(group, [heads[members.index(m)] for m in group], interruption)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]


def _run_group(members, heads, interruption):
    """Trains members that go on from one step, and evaluates each."""
    with recorded([(m.config, m.run) for m in members]):
        for m, head in zip(members, heads, strict=True):
            m.origin = provenance.describe_computing(m.config, head, len(members))
        state, summaries = train(members, interruption)
        chosen = select_all(members, state)
        if distributed.asked_to_end():
            raise Interrupted("after the training")
    if distributed.part():
        finish_all(members, heads, chosen, summaries)
