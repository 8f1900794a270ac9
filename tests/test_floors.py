"""The rooms of the three packages: which may import which, held against every import, those inside functions too."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# From the top to the ground. A floor has rooms, each of one or several modules or folders; a room may import from the
# floors below it, and within itself, but not from another room of its floor.
FLOORS = {
    "tx": [
        ["train", "evaluate", "decode", "check", "export", "trained"],
        ["training"],
        ["evaluation"],
        ["decoding"],
        ["runs"],
        ["model", "data"],
        ["kernels"],
        ["runtime"],
        ["config fields components cli registry plugins files errors streams renamed_fields"],
    ],
    "experiments": [
        ["__main__", "bench.__main__"],
        [
            "export",
            "readme",
            "bench.arguments bench.attention_grid bench.compiling bench.decoding bench.guards bench.packing "
            "bench.seeds bench.step_memory bench.table bench.training",
        ],
        ["analysis", "frames", "listing", "page", "bench.contestants"],
        ["bench.harness", "report"],
        ["claims", "config", "launches", "tuning", "sweeps"],
        ["locks", "points", "registry"],
        ["scales"],
    ],
    "launch": [
        ["command", "gpu.__main__", "plan.__main__", "scripted"],
        ["gpu.session gpu.bundle gpu.take"],
        ["slurm", "ray"],
        ["slurm_worker", "ray_pool"],
        ["ray_hosts"],
        ["gpu.archives gpu.budget gpu.mps gpu.timed gpu.wanted", "local verify"],
        ["preparation"],
        ["worker"],
        ["status", "tuning"],
        ["command_line", "display", "forecast", "grouping", "power", "queue", "request", "text"],
        ["time_left"],
        ["pool"],
        ["devices", "failures", "plan", "resources", "compilation_cache", "watchdog"],
        ["assignments", "completion", "dispatch", "matching"],
    ],
}
PACKAGES = ["tx", "experiments", "launch"]  # each may import from those before it


def modules(package):
    """{dotted name: file} of a package; the folder's own name for its __init__."""
    names = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = {name: path for package in PACKAGES for name, path in modules(package).items()}


def imported(path):
    """The modules of this project that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in PACKAGES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module.partition(".")[0] in PACKAGES:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    yield full if full in MODULES else node.module


def room(module):
    """(floor from the top, room) that a module is in; None for a package itself."""
    package, _, name = module.partition(".")
    for number, floor in enumerate(FLOORS[package]):
        for those in floor:
            if any(name == one or name.startswith(f"{one}.") for one in those.split()):
                return number, those
    return None


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_its_room(package):
    folders = {package, "experiments.bench", "launch.gpu"}  # whose modules have rooms of their own
    assert {name for name in modules(package) if room(name) is None} == folders & set(modules(package))
    there = {one for floor in FLOORS[package] for those in floor for one in those.split()}
    assert {one for one in there if f"{package}.{one}" not in MODULES} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_lead_down(package):
    up = set()
    for name, path in modules(package).items():
        for other in imported(path):
            ours, theirs = room(name), room(other)
            if other.partition(".")[0] != package:
                assert PACKAGES.index(other.partition(".")[0]) < PACKAGES.index(package), f"{name} imports {other}"
            elif ours and theirs and ours != theirs and theirs[0] <= ours[0]:
                up.add((name, other))
    assert up == set()
