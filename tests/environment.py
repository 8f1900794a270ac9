"""The environment of the tests and of the processes that they start; to be imported before JAX is."""

import os
import signal

from xla_flags import PLAIN_CODE, TWO_DEVICES

GIVEN = {"TX_DATA_DIR", "TX_TF_PYTHON", "TX_COMPILE_PYTHON"}  # what tests are told from outside

for name in [name for name in os.environ if name.startswith(("TX_", "JAX_", "XLA_")) and name not in GIVEN]:
    del os.environ[name]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{TWO_DEVICES} {PLAIN_CODE}"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ.pop("COLUMNS", None)  # tables are as wide as when piped, whatever terminal the tests are started from
# Who starts the tests in the background has SIGINT ignored, which every process that they start would inherit.
for number, handler in {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}.items():
    signal.signal(number, handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
