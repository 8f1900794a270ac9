"""The field's words: what was renamed keeps its new name, and what is public in tx says what it is."""

import ast
import pathlib
import re

import pytest

from tx.renamed_fields import NEW_NAMES

ROOT = pathlib.Path(__file__).resolve().parent.parent
RENAMED = {  # of a module, "old:new"; names inside a class are dotted
    "tx/model/packed_mask.py": "Rows:PackedMask",
    "tx/model/position_context.py": """
        Place:PositionContext PositionContext.turn:PositionContext.rotate
        PositionContext.logits:PositionContext.logit_bias PositionContext.heads:PositionContext.value_bias
        """,
    "tx/model/attention.py": """
        MultiHeadAttention.memory:MultiHeadAttention.precompute_kv
        MultiHeadAttention.step:MultiHeadAttention.decode_step
        MultiHeadAttention._heads:MultiHeadAttention._split_heads
        MultiHeadAttention._spread:MultiHeadAttention._repeat_kv
        """,
    "tx/model/attention_kernels.py": "accumulate:online_softmax_update",
    "tx/model/mixers.py": "Mixer.step:Mixer.decode_step",
    "tx/model/positions.py": """
        PositionEncoding.turn:PositionEncoding.rotate PositionEncoding.logits:PositionEncoding.logit_bias
        PositionEncoding.heads:PositionEncoding.value_bias
        """,
    "tx/model/transformer.py": """
        Transformer.memory:Transformer.precompute_kv Transformer.step:Transformer.decode_step
        DecoderLayer.step:DecoderLayer.decode_step
        """,
    "tx/data/packing.py": "fill:pack_batch",
    "tx/decoding/translator.py": "batches:length_buckets",
    "tx/training/stacking.py": "Values:TracedHyperparameters VALUE_FIELDS:TRACED_FIELDS program:compile_key",
    "tx/training/step.py": "update:train_step _updates:_scan_train_steps",
    "tx/training/sharding.py": """
        Layout.place:Layout.shard_state Layout.split:Layout.shard_batch _spread:_shard
        """,
    "tx/training/training_run.py": """
        Member:TrainingRun TrainingRun.tell:TrainingRun.set_status TrainingRun.told:TrainingRun.training_summary
        """,
    "tx/training/run_group.py": """
        RunGroup.say:RunGroup.set_status RunGroup.told:RunGroup.training_summaries
        RunGroup.watch_loss:RunGroup.observe_loss RunGroup.settle_loss:RunGroup.flush_loss
        """,
    "tx/training/loss_monitor.py": """
        Sentinel:LossMonitor LossMonitor.look:LossMonitor.observe LossMonitor.settle:LossMonitor.flush
        """,
    "tx/training/experiment.py": "take_up:claim_runs",
    "tx/training/reevaluation.py": "translate_again:evaluate_with_trained_params",
    "tx/training/memory_check.py": "rehearse:check_memory",
    "tx/files.py": "seal:write_checksums damage:find_corruption",
    "tx/runtime/distributed.py": "agreed:broadcast_value first:is_primary",
    "tx/runs/checkpoints.py": """
        Checkpoints.sound:Checkpoints.verify Checkpoints._seal:Checkpoints._write_checksums
        Checkpoints._damage:Checkpoints._find_corruption
        """,
    "tx/runs/lease.py": "BEAT:HEARTBEAT_SECONDS Lease.tell:Lease.set_status",
    "experiments/scales.py": "Scale.redial:Scale.rescale_recipe Scale.resize:Scale.scale_sizes",
    "experiments/analysis/complexity.py": "longest_chain:critical_path_length dependence:dependency_matrix",
    "launch/compilation_cache.py": "check:delete_corrupt seal:write_checksums",
    "launch/preparation.py": "rehearse:check_memory",
    "launch/tuning.py": "Tuning.told:Tuning.finish _Tuned.told:_Tuned.summary",
}


def definitions(path):
    """{name of a function, class or constant of a module, dotted inside a class: its node}."""

    def of(body, prefix=""):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name, node
                yield from of(node.body, f"{prefix}{node.name}.") if isinstance(node, ast.ClassDef) else ()
            elif isinstance(node, ast.Assign):
                yield from ((prefix + target.id, node) for target in node.targets if isinstance(target, ast.Name))

    return dict(of(ast.parse(path.read_text(encoding="utf-8")).body))


@pytest.mark.parametrize("module", RENAMED)
def test_names_of_before_are_gone(module):
    found = definitions(ROOT / module).keys()
    old, new = map(set, zip(*(pair.split(":") for pair in RENAMED[module].split()), strict=True))
    assert new <= found
    assert not old & found


@pytest.mark.parametrize("old", NEW_NAMES)
def test_no_code_or_page_has_a_configuration_field_of_before(old):
    apart = {ROOT / "tx" / "renamed_fields.py", ROOT / "tests" / "test_renamed_fields.py", ROOT / "CHANGELOG.md"}
    files = {*ROOT.glob("*.md"), ROOT / "Makefile"} - apart
    for folder in ("tx", "experiments", "launch", "tests"):
        files |= {path for kind in ("*.py", "*.md") for path in (ROOT / folder).rglob(kind)} - apart
    written = re.compile(rf"(?:(?<![\w.])|--config\.){re.escape(old)}(?!\w|\.\w)")
    assert [path for path in sorted(files) if written.search(path.read_text(encoding="utf-8"))] == []


def test_what_is_public_in_tx_has_a_docstring():
    """A method may have that of the method which it overrides; Linen calls `setup`, ast `visit_...`."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "tx").rglob("*.py"))}
    pairs = [(path, *pair) for path in trees for pair in definitions(path).items()]
    found = [one for one in pairs if isinstance(one[2], ast.FunctionDef | ast.ClassDef)]
    said = {name for _, name, node in found if ast.get_docstring(node)}
    bases = {
        name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for _, name, node in found
        if isinstance(node, ast.ClassDef)
    }

    def is_said(name):
        owner, _, method = name.rpartition(".")
        return name in said or any(is_said(f"{base}.{method}") for base in bases.get(owner, ()))

    assert [path for path, tree in trees.items() if not ast.get_docstring(tree)] == []
    exempt = re.compile(r"_.*|(.*\.)?(_.*|setup|main|visit_.*)")
    assert [f"{path}: {name}" for path, name, _ in found if not exempt.fullmatch(name) and not is_said(name)] == []
