"""Whether the service runs, and is ready."""

from __future__ import annotations

from scanner.doctor.finding import Notes
from scanner.doctor.http import Client, NoAnswer, Reply, session

_KEY = "server.ops_listen"
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - where to ask one that listens everywhere


async def examine(notes: Notes, ops_listen: str) -> None:
    """What its operations listener says; `ops_listen` is host:port."""
    notes.subject = ops_listen
    host, _, port = ops_listen.rpartition(":")
    async with session() as opened:
        client = Client(opened, f"http://{_ANY.get(host, host)}:{port}", _KEY)
        try:
            _note(notes, await client.get("/health/ready"))
        except NoAnswer as problem:
            if problem.refused:
                notes.skipped("service", "does not run here", "start it: systemctl start media-scanner")
            else:
                notes.failed("service", problem.found, problem.advice)


def _note(notes: Notes, reply: Reply) -> None:
    ready, reasons = reply.content.get("ready"), reply.content.get("reasons")
    if not isinstance(ready, bool) or not isinstance(reasons, dict):
        notes.failed("service", "something else listens there", f"correct {_KEY}, or end the other program")
        return
    if ready:
        notes.ok("service", "runs, and is ready")
    for reason, advice in reasons.items():
        notes.failed("service", f"runs, and is not ready: {reason}", str(advice))
    if reply.content.get("mode") == "observe":
        found = "policy.mode is observe: everything is handed over"
        notes.warning("mode", found, "set policy.mode: enforce when you have seen enough")
