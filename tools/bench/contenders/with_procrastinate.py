"""procrastinate on PostgreSQL: it records the states of each job as events; `delete_jobs` has its default."""

from typing import Any, Final

from procrastinate import App, PsycopgConnector

from tools.bench.contenders.job import Order, Sender, main, ready

_AT_ONCE: Final = 500
_CONNECTIONS: Final = 10


def _with_task(ordered: Order) -> tuple[App, Any, Sender]:
    app = App(connector=PsycopgConnector(conninfo=ordered.postgres_url, min_size=1, max_size=_CONNECTIONS))
    sender = Sender(ordered)

    async def post(delivery: str, body: str) -> None:
        await sender.post(delivery, body.encode())

    return app, app.task(name="post")(post), sender


async def enqueue(ordered: Order) -> None:
    """Create the schema, and queue all jobs."""
    app, task, _ = _with_task(ordered)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        jobs = [{"delivery": f"msg_{number}", "body": ordered.body} for number in ordered.numbers]
        for first in range(0, len(jobs), _AT_ONCE):
            await task.batch_defer_async(*jobs[first : first + _AT_ONCE])


async def work(ordered: Order) -> None:
    """Work until killed."""
    app, _, sender = _with_task(ordered)
    async with app.open_async():
        sender.open()
        ready()
        await app.run_worker_async(concurrency=ordered.concurrency, install_signal_handlers=False)


if __name__ == "__main__":
    main(enqueue, work)
