"""`hookseal overview`: how much there is in the installation."""

from hookseal.cli.context import READS, call
from hookseal.cli.shared.output import Json, emit, fields_of, key_values
from hookseal.cli.shared.runtime import start


def overview(*, as_json: Json = False) -> None:
    """Count tenants, endpoints, deliveries, keys and workers, each up to 10,000, and what is due or waits.

    Example: hookseal overview
    """
    found = call(start(READS), lambda admin: admin.overview())
    text = {name: f"{fact} or more" if fact == found.most else fact for name, fact in fields_of(found).items()}
    emit(found, as_json=as_json, text=lambda: "\n".join(key_values({n: f for n, f in text.items() if n != "most"})))
