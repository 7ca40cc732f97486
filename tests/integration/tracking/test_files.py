"""Parts of files that are still being sent belong to nobody, and do not stay for ever."""

from __future__ import annotations

from datetime import timedelta

from mainspring.core.clock import ManualClock
from mainspring.tracking.files import UPLOADS
from mainspring.workspace import Workspace


def test_parts_of_an_upload_that_never_ended_are_swept(workspace: Workspace, clock: ManualClock) -> None:
    files = workspace.runs.files
    old, kept = workspace.artifacts.put(b"old"), workspace.artifacts.put(b"kept")
    files.put(f"{UPLOADS}{'a' * 32}", "1", old.digest, old.size)
    files.put("", "0/models/weights", kept.digest, kept.size)
    clock.advance(timedelta(days=6))
    workspace.controller.sweep()
    assert files.under(f"{UPLOADS}{'a' * 32}", ""), "it may still go on"
    clock.advance(timedelta(days=2))
    workspace.controller.sweep()
    assert files.under(f"{UPLOADS}{'a' * 32}", "") == []
    assert workspace.store.artifact_owners() == {kept.digest}
