"""The parts of aiohttp that hookseal uses although aiohttp does not document them as stable.

pyproject.toml admits one minor version of aiohttp. Before that bound is raised, these tests must pass
with the next one.
"""

import ast
import asyncio
import inspect
import tomllib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http import HttpProcessingError, RawResponseMessage
from packaging.requirements import Requirement
from packaging.version import Version

from hookseal.dispatcher.http import connection, dial
from hookseal.worker import health

ROOT = Path(__file__).parents[2]
# For each class of ours: its base class, and each private name of it that we call, read or override.
PRIVATE: dict[str, tuple[Any, type, set[str]]] = {
    # `_create_connection` is what `BaseConnector.connect` calls for a new connection; we override it.
    "Connector": (dial, aiohttp.BaseConnector, {"_create_connection", "_loop"}),
    # `_reading_paused` says whether aiohttp waits until its reader has caught up.
    "HttpConnection": (connection, ResponseHandler, {"_reading_paused"}),
    "_Connection": (health, web.RequestHandler, set()),
}
# Public names of undocumented classes of aiohttp that we call or override.
UNDOCUMENTED: dict[type, set[str]] = {
    ResponseHandler: {
        *("abort", "close", "closed", "connection_lost", "data_received", "exception", "feed_data", "force_close"),
        *("is_connected", "read", "set_response_params", "should_close", "transport"),
    },
    HttpProcessingError: {"message"},
    RawResponseMessage: {"code", "headers"},
    aiohttp.StreamReader: {"at_eof", "iter_any", "total_bytes"},
    web.RequestHandler: {"connection_lost", "connection_made", "transport"},
}
PARAMETERS: dict[str, tuple[Any, list[str]]] = {
    "BaseConnector.connect": (aiohttp.BaseConnector.connect, ["self", "req", "traces", "timeout"]),
    "BaseConnector._create_connection": (
        aiohttp.BaseConnector._create_connection,
        ["self", "req", "traces", "timeout"],
    ),
    "ResponseHandler.feed_data": (ResponseHandler.feed_data, ["self", "data", "size"]),
}


def used(module: Any, name: str) -> set[str]:
    """Return every private name that this class of ours defines, or reads from `self`."""
    tree = ast.parse(inspect.getsource(module))
    (ours,) = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name)
    read = {
        node.attr
        for node in ast.walk(ours)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    defined = {node.name for node in ours.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {found for found in read | defined if found.startswith("_") and not found.startswith("__")}


async def instance(base: type) -> object:
    """Return an object of a class of aiohttp."""
    if base is web.RequestHandler:
        return web.RequestHandler(web.Server(lambda _: web.Response()), loop=asyncio.get_running_loop())  # type: ignore[arg-type, return-value]
    if base is ResponseHandler:
        return ResponseHandler(asyncio.get_running_loop())
    return base()


@pytest.mark.parametrize("name", PRIVATE)
async def test_each_private_name_exists(name: str) -> None:
    """Each private name of aiohttp that a class of ours uses is in the list and exists in aiohttp, and no other private
    name of ours overwrites one of aiohttp.
    """
    module, base, listed = PRIVATE[name]
    aiohttps = await instance(base)
    theirs = {private for private in used(module, name) if hasattr(aiohttps, private)}
    if isinstance(aiohttps, aiohttp.BaseConnector):
        await aiohttps.close()

    assert set() == listed - theirs, (
        f"aiohttp {aiohttp.__version__} has no {base.__name__}.{', '.join(sorted(listed - theirs))} any more, or "
        f"{name} does not use it any more: change hookseal.{module.__name__.partition('.')[2]}, or this list"
    )
    assert set() == theirs - listed, (
        f"aiohttp {aiohttp.__version__} has private names in {base.__name__} that {name} has, too: rename ours, or add "
        "them to the list"
    )


@pytest.mark.parametrize("owner", UNDOCUMENTED, ids=lambda owner: owner.__name__)
async def test_each_undocumented_name_exists(owner: type) -> None:
    """Each public name that we use of an undocumented class exists."""
    found = owner if owner in {RawResponseMessage, aiohttp.StreamReader} else await instance(owner)
    names = {*dir(found), *getattr(owner, "__annotations__", {})}

    assert set() == UNDOCUMENTED[owner] - names, f"aiohttp {aiohttp.__version__} has removed these names"


@pytest.mark.parametrize("name", PARAMETERS)
def test_overridden_methods_keep_their_parameters(name: str) -> None:
    """The methods that we override still have the parameters that our versions accept."""
    method, expected = PARAMETERS[name]

    assert expected == list(inspect.signature(method).parameters), (
        f"aiohttp {aiohttp.__version__} has changed these parameters"
    )


def test_called_functions_have_our_parameters() -> None:
    """The parameters of a request exist, and the key of a kept connection has its fields in this order."""
    parameters = inspect.signature(ResponseHandler.set_response_params).parameters

    assert {"read_until_eof", "auto_decompress", "read_bufsize"} <= parameters.keys()
    assert ("host", "port", "is_ssl", "ssl", "proxy", "proxy_auth", "proxy_headers_hash") == ConnectionKey._fields[:7]


def test_one_minor_version_is_admitted() -> None:
    """pyproject.toml admits only the minor version of aiohttp that these tests ran with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    worker = project["optional-dependencies"]["worker"]
    (admitted,) = (need for need in map(Requirement, worker) if need.name == "aiohttp")
    installed = Version(aiohttp.__version__)

    assert installed in admitted.specifier
    assert f"{installed.major}.{installed.minor}.999" in admitted.specifier
    assert f"{installed.major}.{installed.minor + 1}.0" not in admitted.specifier
    assert f"{installed.major + 1}.0.0" not in admitted.specifier
