"""The clock of a process: it stands still while the process is stopped, and goes on while it waits or computes."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

WORK = {
    "waits": "time.sleep(2)",
    # Of one instruction, so that no other thread has a turn meanwhile.
    "computes": "began = time.monotonic()\nwhile time.monotonic() < began + 2: sum(range(120_000_000))",
    "is stopped": "sys.stdin.readline()",
}


@pytest.mark.parametrize("what", WORK)
def test_a_stop_takes_no_time_and_waiting_or_computing_does(what):
    code = f"""
        import sys, time
        from tx.runtime import clock
        clock.BEAT, clock.LONGEST = 0.05, 1.0
        began, wall = clock.running_time(), time.monotonic()
        print(flush=True)
        {WORK[what].replace(chr(10), chr(10) + " " * 8)}
        print(clock.running_time() - began, time.monotonic() - wall)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    if what == "is stopped":
        process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        process.send_signal(signal.SIGCONT)
    running, wall = map(float, process.communicate("\n", timeout=120)[0].split())
    assert wall >= 2
    if what == "is stopped":
        assert running <= wall - 1.9
    else:
        assert running == pytest.approx(wall, abs=0.5)
