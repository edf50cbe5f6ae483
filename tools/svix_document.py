"""Writes the part of Svix's OpenAPI document that hookseal serves, for a test: tests/api/svix/openapi.json.

Theirs is `codegen/lib-openapi.json` of https://github.com/svix/svix-webhooks (MIT), from which their client libraries
are made. Run it with the path of that file and its commit, once a call is added:

python -m tools.svix_document lib-openapi.json 4fc0cfb8b426c87ef7e2b937e7d896a71d456a47
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hookseal.api.calls import CALLS

PLACE: Final = Path(__file__).parents[1] / "tests" / "api" / "svix" / "openapi.json"
SOURCE: Final = "https://github.com/svix/svix-webhooks, codegen/lib-openapi.json"
_REFERENCE: Final = re.compile(r'"#/components/schemas/(\w+)"')
_TEXTS: Final = frozenset({"description", "example", "title", "summary", "tags", "security", "style"})
_ID: Final = re.compile(r"\^(?:app|atmpt|ep|msg|qtask)_")  # ids of Svix; those of hookseal have no prefix


def reduced(theirs: dict[str, Any], commit: str) -> dict[str, Any]:
    """Return the operations that hookseal serves, with their schemas: without texts, and with any text as an id."""
    served = {(call.path, call.method.lower()) for call in CALLS}
    paths = {
        path: {method: _without_texts(operation) for method, operation in methods.items() if (path, method) in served}
        for path, methods in theirs["paths"].items()
    }
    paths = {path: methods for path, methods in paths.items() if methods}
    schemas: dict[str, Any] = {}
    wanted = {*_REFERENCE.findall(json.dumps(paths))}
    while wanted:
        name = wanted.pop()
        schemas[name] = _without_texts(theirs["components"]["schemas"][name])
        wanted |= {*_REFERENCE.findall(json.dumps(schemas[name]))} - {*schemas}
    return {
        "openapi": "3.0.3",  # it says 3.1.0, and has the `nullable` of 3.0
        "info": {
            "title": "The operations of Svix that hookseal serves",
            "version": theirs["info"]["version"],
            "license": {"name": "MIT"},
            "x-source": f"{SOURCE} at {commit}",
        },
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def _without_texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_texts(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("nullable") and "$ref" in value:  # beside a reference nothing else counts
        return {"nullable": True, "allOf": [{"$ref": value["$ref"]}]}
    left_out = {"pattern", "minLength", "maxLength"} if _ID.match(str(value.get("pattern", ""))) else set[str]()
    return {
        name: {member: _without_texts(of) for member, of in each.items()}
        if name == "properties"
        else _without_texts(each)
        for name, each in value.items()
        if name not in left_out | _TEXTS and not name.startswith("x-")
    }


def written(document: dict[str, Any]) -> str:
    """Return the document as JSON, with a line for each operation and each schema."""
    paths = ",\n".join(
        f"{json.dumps(path)}: {{\n"
        + ",\n".join(f"{json.dumps(method)}: {json.dumps(each)}" for method, each in methods.items())
        + "}"
        for path, methods in document["paths"].items()
    )
    schemas = ",\n".join(f"{json.dumps(name)}: {json.dumps(each)}" for name, each in _schemas(document).items())
    head = ",\n".join(f"{json.dumps(name)}: {json.dumps(document[name])}" for name in ("openapi", "info"))
    return f'{{{head},\n"paths": {{\n{paths}}},\n"components": {{"schemas": {{\n{schemas}}}}}}}\n'


def _schemas(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"]
    return found


def main(arguments: Sequence[str]) -> int:
    """Write the document."""
    theirs, commit = arguments
    PLACE.write_text(written(reduced(json.loads(Path(theirs).read_text(encoding="utf-8")), commit)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
