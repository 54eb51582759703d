"""Pulling a container's image: found on this machine at once, or failing and waiting as a kubelet does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from devcluster.node.backoff import BackOff
from devcluster.node.images import default_pull_policy, find_image, parse_reference, pull_refused
from devcluster.node.status import Waiting
from devcluster.settings import Image

if TYPE_CHECKING:
    from devcluster.node.container import Container

_INVALID_PERIOD, _NEVER_PERIOD = 30.0, 2.0


class ImagePuller:
    """Pulls the image of one container, before each of its runs."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._settings = container.pod.node.settings
        self._back_off = BackOff(self._settings.image_back_off)

    async def pull(self) -> Image:
        """Return when the image is there; until then the container's state and events say why it is not."""
        container, text = self._container, str(self._container.spec["image"])
        if parse_reference(text) is None:
            await self._invalid(text)
        policy = container.spec.get("imagePullPolicy") or default_pull_policy(text)
        while True:
            image = find_image(self._settings.images, text)
            refused, delay = container.pod.image_trouble(text)
            present = policy != "Always" and container.facts.last is not None
            if image is not None and (present or not (refused or delay)):
                self._pulled(text, policy)
                return image
            if policy == "Never":
                message = f'Container image "{text}" is not present with pull policy of Never'
                container.set(state=Waiting("ErrImageNeverPull", message))
                container.event("Warning", "ErrImageNeverPull", message)
                await container.pause(_NEVER_PERIOD)
                continue
            container.event("Normal", "Pulling", f'Pulling image "{text}"')
            if delay:
                await container.pause(delay)
                container.pod.image_pulled(text)
            if image is not None and not refused:
                took = f"{delay:g}s ({delay:g}s including waiting)"
                container.event("Normal", "Pulled", f'Successfully pulled image "{text}" in {took}.')
                return image
            await self.failed(text)

    def _pulled(self, text: str, policy: str) -> None:
        event = self._container.event
        if policy == "Always":
            event("Normal", "Pulling", f'Pulling image "{text}"')
            event("Normal", "Pulled", f'Successfully pulled image "{text}" in 1ms (1ms including waiting).')
        else:
            event("Normal", "Pulled", f'Container image "{text}" already present on machine')

    async def _invalid(self, text: str) -> None:
        message = (
            f'Failed to apply default image tag "{text}": couldn\'t parse image name "{text}": invalid reference format'
        )
        while True:
            self._container.set(state=Waiting("InvalidImageName", message))
            self._container.event("Warning", "InspectFailed", message)
            await self._container.pause(_INVALID_PERIOD)

    async def failed(self, text: str) -> None:
        """Show a failed pull of `text`, then wait the back-off."""
        container, message = self._container, pull_refused(text)
        container.event("Warning", "Failed", f'Failed to pull image "{text}": {message}')
        container.event("Warning", "Failed", "Error: ErrImagePull")
        container.set(state=Waiting("ErrImagePull", message))
        now = time.monotonic()
        wait = self._back_off.next(now, now) or self._settings.image_back_off
        await container.pause(min(0.5, wait / 2))
        container.event("Normal", "BackOff", f'Back-off pulling image "{text}"')
        container.event("Warning", "Failed", "Error: ImagePullBackOff")
        container.set(state=Waiting("ImagePullBackOff", f'Back-off pulling image "{text}": ErrImagePull: {message}'))
        await container.pause(wait)
