"""What every test relies on: two devices, strict dtypes and ranks, checked shapes, a cache and a folder of its own.

Nothing of where, by whom and after what the tests are started makes a difference to them.
"""

import environment  # noqa: F401, I001 - sets variables that JAX reads when it is imported
import os

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
def _elsewhere(tmp_path_factory):
    """An empty folder to be in, which stays empty, and another one as the user's own."""
    folder, home = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(home))
        yield
    assert list(folder.iterdir()) == [], "a test wrote to the current folder"


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
