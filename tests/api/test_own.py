"""What hookseal has and Svix does not, under a path of its own."""

from typing import Any

import httpx

from hookseal import Admin
from tests.doubles.stored import Installation
from tests.operations.test_replay_jobs import dead_letters

PATH = "/api/hookseal/v1/app/acme"


async def test_a_rotation_is_shown_rolled_back_and_ended(client: httpx.AsyncClient, admin: Admin) -> None:
    added = await admin.endpoints.add(
        tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", actor="test"
    )
    own: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    path = f"{PATH}/endpoint/main/rotation"
    before = (await client.get(path)).json()
    assert (1, None, None, False) == (
        *(before[name] for name in ("generation", "previousSecretRef", "overlapEndsAt", "overlapping")),
    )
    assert 409 == (await client.post(f"{path}/rollback", json={})).status_code
    rotated = await admin.secrets.rotate(**own, actor="test")
    shown = (await client.get(path)).json()
    assert (rotated.secret_ref, added.secret_ref, True) == (
        *(shown[name] for name in ("secretRef", "previousSecretRef", "overlapping")),
    )
    back = await client.post(f"{path}/rollback", json={"gracePeriodSeconds": 60})
    assert (200, added.secret_ref, rotated.secret_ref) == (
        back.status_code,
        *(back.json()[name] for name in ("secretRef", "previousSecretRef")),
    )
    wrong = await client.post(f"{path}/rollback", json={"gracePeriodSeconds": -1})
    assert ["body", "gracePeriodSeconds"] == wrong.json()["detail"][0]["loc"]
    ended = await client.post(f"{path}/end")
    assert (200, added.secret_ref, None, False) == (
        ended.status_code,
        *(ended.json()[name] for name in ("secretRef", "previousSecretRef", "overlapping")),
    )
    assert 409 == (await client.post(f"{path}/end")).status_code


async def test_a_delivery_is_explained(client: httpx.AsyncClient, admin: Admin, installation: Installation) -> None:
    """In the words of the states; the commands of an operator are not for a customer."""
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    await admin.endpoints.disable(tenant_id="acme", endpoint_id=added.endpoint_id, reason="it moves", actor="test")
    [ring] = await installation.deliveries()
    answer = await client.get(f"{PATH}/delivery/{ring.delivery_id}/why")

    assert {"deliveryId": ring.delivery_id, "state": "pending", "waitingFor": "endpoint_disabled"} == {
        name: answer.json()[name] for name in ("deliveryId", "state", "waitingFor")
    }
    assert "hookseal" not in answer.text


async def test_an_ordered_endpoint_goes_on(client: httpx.AsyncClient, admin: Admin, installation: Installation) -> None:
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], ordered=True, actor="test")
    [stopping] = await dead_letters(installation, 1)
    path = f"{PATH}/delivery/{stopping}/skip"
    first, again = await client.post(path), await client.post(path)

    assert (200, "dead_letter") == (first.status_code, first.json()["state"])
    assert (409, "conflict") == (again.status_code, again.json()["code"])
