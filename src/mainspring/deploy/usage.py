"""Which models deployments need."""

from __future__ import annotations

from mainspring.deploy.model import Deployment
from mainspring.errors import Conflict
from mainspring.store import Store


class Usage:
    """Speaks for the deployments when a model or a version is to go (see `mainspring.registry.follower.Follower`).

    Args:
        store: The database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def removed(self, model: str, address: str) -> None:
        """Objects to the removal of a version that is used, or of a model that has a deployment."""
        for deployment in self._store.find(Deployment, model=model, limit=10_000):
            used = (deployment.live, deployment.canary, deployment.kept, *deployment.arms)
            if not address or address in used:
                raise Conflict(
                    f"deployment `{deployment.name}` uses {address or model}",
                    hint=f"release another version there: mainspring deployments show {deployment.name}",
                )

    def trusted(self, model: str) -> list[str]:
        """The types that deployments of a model let its versions be made of: see `Models.trusting`."""
        found = self._store.find(Deployment, model=model, limit=10_000)
        return [name for deployment in found for name in deployment.serving.trusted_types]

    def renamed(self, model: str, to: str) -> None:
        """Objects to a new name for a model that has a deployment: what it answered is on record under the old one."""
        self.removed(model, "")
