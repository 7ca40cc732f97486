"""Writes use cases with their events until it is done or killed, and prints each name once it is stored."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from mainspring.core.ids import new_id
from mainspring.store import Store
from mainspring.usecases.model import UseCase

url, writer, count = sys.argv[1:]
store = Store(url)
for number in range(int(count)):
    name = f"{writer}.{number}"
    with store.transaction() as tx:
        tx.insert(UseCase(id=new_id(), created=datetime.now(UTC), name=name))
        tx.emit("usecases.usecase.created", name)
    print(name, flush=True)
store.close()
