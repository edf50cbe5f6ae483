"""Signals that come while a worker ends."""

import subprocess
import sys

import pytest

# Prints each action that is set for SIGTERM from the first signal on.
_STOPS = """
import os, signal, sys

set_action = signal.signal

def noting(number, action):
    if number == signal.SIGTERM:
        actions.append(action)
    return set_action(number, action)

signal.signal = noting  # before uvloop is loaded, which keeps the function
import asyncio
import uvloop
from hookseal.worker.stopping import ignore_stop, on_stop

async def until_stop():
    stop = asyncio.Event()
    on_stop(stop.set)
    actions.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    ignore_stop()

actions = []
with asyncio.Runner(loop_factory={"asyncio": None, "uvloop": uvloop.new_event_loop}[sys.argv[1]]) as runner:
    runner.run(until_stop())
os.kill(os.getpid(), signal.SIGTERM)
print(actions)
"""


@pytest.mark.req("DUR-05")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_at_no_moment_of_its_end_a_further_signal_kills_a_worker(loop: str) -> None:
    """From the first SIGTERM on the action is never the default one, with which a second one gives an error."""
    run = subprocess.run([sys.executable, "-c", _STOPS, loop], capture_output=True, text=True, check=False)

    assert (0, "[<Handlers.SIG_IGN: 1>]\n", "") == (run.returncode, run.stdout, run.stderr)
