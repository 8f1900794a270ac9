"""The schedule and Adam against the paper's formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tx import config as config_lib
from tx.training.optimizer import optimizer, schedule


def test_schedule_is_equation_3():
    rate = schedule(config_lib.get_config())
    for step in (1, 2, 100, 3999, 4000, 4001, 100_000):
        want = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert float(rate(step - 1)) == pytest.approx(want, rel=1e-5)
    assert max(range(0, 20_000, 100), key=lambda count: float(rate(count))) in (3900, 4000)


def test_factor_and_no_warmup():
    config = config_lib.get_config()
    config_lib.update(config, {"optim.warmup_steps": 0, "optim.lr_factor": 0.5, "model.d_model": 64})
    rate = schedule(config)
    assert [float(rate(n)) for n in (0, 3, 99)] == pytest.approx([0.5 / 8, 0.5 / 16, 0.5 / 80], rel=1e-5)


def test_updates_are_adam_with_the_papers_constants():
    adam, params = optimizer(config_lib.get_config()), {"w": jnp.array([1.0, -2.0, 3.0])}
    state, w = adam.init(params), np.array([1.0, -2.0, 3.0])
    m = v = np.zeros(3)
    rng = np.random.default_rng(0)
    for step in range(1, 6):
        g = rng.normal(size=3)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = adam.update({"w": jnp.asarray(g, jnp.float32)}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
        rate = 512**-0.5 * step * 4000**-1.5
        w = w - rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.98**step)) + 1e-9)
        np.testing.assert_allclose(params["w"], w, rtol=1e-5)
