"""`docs/guide/svix.md`: its program brings endpoints with their secrets and ids, and old ids go on to work."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from svix.api import EndpointIn, EndpointOut

from hookseal import Admin
from tests.api.official import official
from tests.cli.command import DEADLINE_SECONDS, hookseal

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "svix.md"
OLD = EndpointIn(
    url="https://receiver.example/hooks",
    uid="ep_2nXcVb8sQhTz0000000000000aa",
    description="of an older system",
    event_types=["invoice.paid", "invoice.sent"],
    channels=["north"],
    metadata={"plan": "gold"},
    throttle_rate=50,
    disabled=True,
)


def program() -> str:
    """Return the program that writes the endpoints as CSV."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(blocks[1])


async def exported(url: str, folder: Path) -> Path:
    """Run the program against this server, and return its file."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program()),
        env=os.environ | {"SVIX_TOKEN": "every", "SVIX_SERVER_URL": url},
        stdout=PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert 0 == process.returncode
    file = folder / "endpoints.csv"
    file.write_bytes(out)
    file.chmod(0o600)
    return file


def kept(endpoint: EndpointOut) -> dict[str, object]:
    """Return what an endpoint keeps when it is moved: everything but its id and its times."""
    return endpoint.model_dump(exclude={"id", "created_at", "updated_at"})


@pytest.mark.req("API-02", part="python")
async def test_endpoints_move_with_their_secrets_and_ids(
    admin: Admin, url: str, environ: dict[str, str], tmp_path: Path
) -> None:
    async with official("every", url) as svix:
        before = [await svix.endpoint.create("acme", OLD)]
        before += [
            await svix.endpoint.create(
                "globex", EndpointIn(url=f"https://receiver.example/{number}", uid=f"ep_{number}")
            )
            for number in range(101)
        ]
        owners = ["acme", *["globex"] * 101]
        secrets = [
            (await svix.endpoint.get_secret(owner, each.id)).key for owner, each in zip(owners, before, strict=True)
        ]
        file = await exported(url, tmp_path)
        for owner, each in zip(owners, before, strict=True):
            await admin.endpoints.delete(tenant_id=owner, endpoint_id=each.id, actor="test")

        moved = await hookseal("import-endpoints", "--from-csv", str(file), "--scheme", "standard", "--json", **environ)
        assert (0, 102, []) == (moved.code, moved.json["added"], moved.json["failed"])
        after = [await svix.endpoint.get(owner, str(each.uid)) for owner, each in zip(owners, before, strict=True)]
        assert list(map(kept, before)) == list(map(kept, after))
        assert secrets == [
            (await svix.endpoint.get_secret(owner, str(each.uid))).key
            for owner, each in zip(owners, before, strict=True)
        ]
