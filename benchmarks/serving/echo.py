"""The HTTP stack of the inference server with nothing behind it: ``python -m benchmarks.serving.echo``."""

from __future__ import annotations

import asyncio
import socket

import uvloop

from mainspring.errors import MainspringError
from mainspring.serving.http import Server
from mainspring.serving.message import Call, Limits, Reply


class Echo:
    def answer(self, call: Call) -> Reply:
        return Reply(200, call.body)

    def refuse(self, path: str, error: MainspringError) -> Reply:
        return Reply(error.status, error.message.encode())


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    await Server(Echo(), Limits()).listen(listener)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
