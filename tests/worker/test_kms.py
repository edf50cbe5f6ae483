"""A KMS keeps the master key: a worker asks it once, at its start, and never afterwards."""

import os
import signal
from pathlib import Path

import pytest

from hookseal.ground.clock import SystemClock
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.kms.keys import key_wrapper
from hookseal.secrets.kms.wrapped import KmsKey, KmsSettings
from tests.doubles.openbao import ROOT_TOKEN, as_root, openbao
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.secrets.kms.sites import openbao_server
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, Worker, World


async def wrapped(address: str) -> dict[str, str]:
    """Return the settings of a KMS that has wrapped the master key of the tests."""
    await as_root(address, "POST", "sys/mounts/transit", {"type": "transit"})
    await as_root(address, "POST", "transit/keys/hookseal", {})
    settings = KmsSettings(
        key=KmsKey.parse("openbao:transit/hookseal"), installation="tests", openbao=openbao_server(address)
    )
    async with key_wrapper(settings, clock=SystemClock()) as wrapper:
        made = await wrapper.wrap(MasterKey.parse(MASTER_KEY_TEXT, variable="of the tests"))
    return {
        "SECRETS_MASTER_KEY": "",
        "SECRETS_MASTER_KEY_WRAPPED": str(made),
        "SECRETS_KMS": str(settings.key),
        "SECRETS_KMS_INSTALLATION": settings.installation,
        "BAO_ADDR": address,
        "BAO_TOKEN": ROOT_TOKEN,
    }


@pytest.mark.req("SEC-25")
async def test_a_worker_asks_the_kms_only_at_its_start(world: World, receiver: Receiver) -> None:
    """While the KMS hangs, deliveries are signed, and a process that was killed starts again with the keys."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with openbao() as kms:
        settings = await wrapped(kms.url)
        async with world.worker(HOOKSEAL_PROCESSES="2", **settings) as worker:
            kms.freeze()
            try:
                killed = worker.process.ready["processes"][0]["pid"]
                _shows_nothing(killed, settings["SECRETS_MASTER_KEY_WRAPPED"])
                os.kill(killed, signal.SIGKILL)
                await eventually(lambda: _is_replaced(worker))
                for ring in [(await world.publish())[0] for _ in range(4)]:
                    await world.state(ring, "delivered")
            finally:
                kms.thaw()


async def _is_replaced(worker: Worker) -> bool:
    figures = await worker.figures()
    restarts = figures.get(("hookseal_process_restarts_total", "killed"))
    return restarts == 1.0 and (await worker.get("/readyz"))[0] == 200 and figures["hookseal_processes", None] == 2.0


def _shows_nothing(pid: int, wrapped_key: str) -> None:
    """Fail if the environment or the arguments of a process have the key, or what unwraps it."""
    shown = Path(f"/proc/{pid}/cmdline").read_bytes()
    try:
        shown += Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:  # it belongs to root, so another user cannot read it
        assert os.geteuid() != 0
    assert [] == [
        text for text in (MASTER_KEY_TEXT, ROOT_TOKEN, wrapped_key, "BAO_", "SECRETS_") if text.encode() in shown
    ]
