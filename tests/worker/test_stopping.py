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


# Sends SIGTERM to a thread that is not the main one while the loop waits. This has the same effect as a signal to the
# main thread in the moment before it begins to wait, which no test can hit.
_SLEEPS = """
import asyncio, signal, sys, threading
import uvloop
from hookseal.worker.stopping import on_stop

async def until_stop():
    stop = asyncio.Event()
    on_stop(stop.set)
    other = threading.Thread(target=threading.Event().wait, daemon=True)
    other.start()
    threading.Timer(0.1, signal.pthread_kill, (other.ident, signal.SIGTERM)).start()
    async with asyncio.timeout(2):
        await stop.wait()

with asyncio.Runner(loop_factory={"asyncio": None, "uvloop": uvloop.new_event_loop}[sys.argv[1]]) as runner:
    runner.run(until_stop())
"""


@pytest.mark.req("DUR-05")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_signal_ends_the_wait_of_the_loop(loop: str) -> None:
    """A stop does not wait until something else happens, for up to five seconds in a parent."""
    run = subprocess.run([sys.executable, "-c", _SLEEPS, loop], capture_output=True, text=True, check=False)

    assert (0, "") == (run.returncode, run.stderr)
