"""What every test relies on: two devices, strict dtypes and ranks, checked shapes, a cache of its own."""

import os

# Before JAX is imported, here and in the processes that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ.pop("COLUMNS", None)  # tables are as wide as when piped, whatever terminal the tests are started from

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook("tx", "typechecker.checked")  # shapes and types of every annotation, at every call

# Machines differ in speed, so no deadline. CI must not fail on an example that nobody can repeat.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Corpora and vocabularies of the tests, built once a session, away from the user's."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # shared by the session's processes
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TX_CACHE_DIR", str(folder / "tx-cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _compiled_once(tmp_path_factory):
    """What a process of the session and those that its tests start compile; many tests train the same model."""
    folder = str(tmp_path_factory.getbasetemp() / "compiled")
    jax.config.update("jax_compilation_cache_dir", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        yield
