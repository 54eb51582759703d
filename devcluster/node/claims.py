"""A default StorageClass whose volumes are directories of this machine."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import aiohttp

from devcluster.errors import ApiError
from devcluster.node.api import Api, Event, Informer

Object = dict[str, Any]
_log = logging.getLogger(__name__)

PROVISIONER = "devcluster.local/directory"
STORAGE_CLASS = "devcluster"
IMMEDIATE_CLASS = "devcluster-immediate"
_PROVISIONER_NOTE = "volume.kubernetes.io/storage-provisioner"
_NODE_NOTE = "volume.kubernetes.io/selected-node"
_OWNER_NOTE = "pv.kubernetes.io/provisioned-by"


def storage_class(name: str, mode: str, *, default: bool) -> Object:
    """A StorageClass of the provisioner. Pure."""
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": mode,
        "allowVolumeExpansion": False,
    }


def volume_for(claim: Object, directory: Path) -> Object:
    """The PersistentVolume that answers a claim. Pure."""
    metadata, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{metadata['uid']}", "annotations": {_OWNER_NOTE: PROVISIONER}},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec.get("storageClassName", STORAGE_CLASS),
            "volumeMode": spec.get("volumeMode", "Filesystem"),
            "hostPath": {"path": str(directory), "type": "DirectoryOrCreate"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        },
    }


def wants_volume(claim: Object, immediate: bool) -> bool:
    """Whether the provisioner has to act on a claim now. Pure."""
    notes = claim["metadata"].get("annotations") or {}
    pending = not claim["spec"].get("volumeName") and claim.get("status", {}).get("phase", "Pending") == "Pending"
    return pending and notes.get(_PROVISIONER_NOTE) == PROVISIONER and (immediate or _NODE_NOTE in notes)


class ClaimProvisioner:
    """Makes volumes for claims of its StorageClasses, and takes released ones away."""

    def __init__(self, api: Api, cluster: str, directory: Path) -> None:
        self._api, self._cluster, self._directory = api, cluster, directory
        self._claims = Informer(api, "/api/v1/persistentvolumeclaims")
        self._volumes = Informer(api, "/api/v1/persistentvolumes")
        self._work: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()

    async def run(self) -> None:
        """Provision until cancelled."""
        self._claims.listen(self._claim_changed)
        self._volumes.listen(self._volume_changed)
        await self._create_classes()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._claims.run())
            group.create_task(self._volumes.run())
            group.create_task(self._serve())

    async def _create_classes(self) -> None:
        classes = (
            storage_class(STORAGE_CLASS, "WaitForFirstConsumer", default=True),
            storage_class(IMMEDIATE_CLASS, "Immediate", default=False),
        )
        for manifest in classes:
            while True:
                try:
                    await self._api.create("/apis/storage.k8s.io/v1/storageclasses", manifest)
                    break
                except ApiError as problem:
                    if problem.reason == "AlreadyExists":
                        break
                    _log.warning("StorageClass: %s", problem)
                except (aiohttp.ClientError, OSError, TimeoutError) as problem:
                    _log.debug("StorageClass: %r", problem)
                await asyncio.sleep(0.2)

    def _claim_changed(self, event: Event, claim: Object) -> None:
        immediate = claim["spec"].get("storageClassName") == IMMEDIATE_CLASS
        if event != "DELETED" and wants_volume(claim, immediate):
            self._work.put_nowait(("create", claim))

    def _volume_changed(self, event: Event, volume: Object) -> None:
        ours = (volume["metadata"].get("annotations") or {}).get(_OWNER_NOTE) == PROVISIONER
        if event != "DELETED" and ours and volume.get("status", {}).get("phase") == "Released":
            self._work.put_nowait(("delete", volume))

    async def _serve(self) -> None:
        while True:
            order, item = await self._work.get()
            name = item["metadata"]["name"]
            try:
                if order == "create":
                    manifest = volume_for(item, self._directory / f"pvc-{item['metadata']['uid']}")
                    await self._api.create("/api/v1/persistentvolumes", manifest)
                else:
                    await asyncio.to_thread(shutil.rmtree, item["spec"]["hostPath"]["path"], ignore_errors=True)
                    await self._api.delete(f"/api/v1/persistentvolumes/{name}")
            except ApiError as problem:
                if problem.reason != "AlreadyExists":
                    _log.warning("%s of volume for %s: %s", order, name, problem)
            except (aiohttp.ClientError, OSError, TimeoutError) as problem:
                _log.info("%s of volume for %s: %r, again in a moment", order, name, problem)
                await asyncio.sleep(0.5)
                self._work.put_nowait((order, item))
