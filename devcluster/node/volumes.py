"""The volumes of one Pod: where each lies on this machine, and keeping those that change up to date."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from devcluster.errors import ApiError
from devcluster.node.api import Api, Object
from devcluster.node.environment import ConfigError, Sources, field_value, resource_value
from devcluster.node.files import MountError, Payload, config_map_payload, secret_payload, write_payload
from devcluster.node.images import find_directory
from devcluster.settings import ClusterSettings

_log = logging.getLogger(__name__)

Finder = Callable[[str, str], Awaitable[Object | None]]
"""A Secret or ConfigMap by namespace and name."""


class ImageVolumeMissingError(Exception):
    """An image volume's reference stands for no directory here; the argument is the reference."""


@dataclass(frozen=True)
class Volume:
    """A volume that is ready to be mounted."""

    path: Path
    read_only: bool = False


@dataclass
class _Token:
    value: str
    renew_at: float


class PodVolumes:
    """Sets up and refreshes the volumes of one Pod below `directory`."""

    def __init__(
        self,
        api: Api,
        settings: ClusterSettings,
        directory: Path,
        *,
        secret: Finder,
        config_map: Finder,
        sources: Callable[[Object], Sources],
    ) -> None:
        self._api, self._settings, self._directory = api, settings, directory
        self._secret, self._config_map, self._sources = secret, config_map, sources
        self._tokens: dict[str, _Token] = {}
        self.ready: dict[str, Volume] = {}

    async def set_up(self, pod: Object, volume: Object) -> None:
        """Make one volume ready.

        Raises:
            MountError: not possible now.
            ImageVolumeMissingError: an image volume cannot be pulled.
        """
        name = volume["name"]
        path = self._directory / name
        if "emptyDir" in volume:
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o777)
            self.ready[name] = Volume(path)
        elif "hostPath" in volume:
            self.ready[name] = Volume(host_path(volume["hostPath"]))
        elif "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]
            found = await self._claimed(pod["metadata"]["namespace"], claim["claimName"])
            self.ready[name] = Volume(found, claim.get("readOnly", False))
        elif "image" in volume:
            reference = volume["image"].get("reference", "")
            self.ready[name] = Volume(self._image_directory(reference), read_only=True)
        else:
            await asyncio.to_thread(write_payload, path, await self._payload(pod, volume))
            self.ready[name] = Volume(path, read_only=True)

    def _image_directory(self, reference: str) -> Path:
        directory = find_directory(self._settings.image_volumes, reference)
        if directory is None or not Path(directory).is_dir():
            raise ImageVolumeMissingError(reference)
        return Path(directory)

    async def _claimed(self, namespace: str, name: str) -> Path:
        try:
            claim = await self._api.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
            if claim.get("status", {}).get("phase") != "Bound":
                raise MountError(f'PVC is not bound: persistentvolumeclaim "{name}"')
            volume = await self._api.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
        except ApiError as problem:
            raise MountError(f"error processing PVC {namespace}/{name}: {problem}") from problem
        spec = volume["spec"]
        if "local" in spec:
            return host_path({"path": spec["local"]["path"], "type": "Directory"})
        if "hostPath" in spec:
            return host_path(spec["hostPath"])
        raise MountError("the node mounts persistent volumes of the kinds hostPath and local only")

    async def _payload(self, pod: Object, volume: Object) -> Payload:
        if "secret" in volume:
            source = volume["secret"]
            return await self._secret_files(pod, source, source["secretName"], source.get("defaultMode", 0o644))
        if "configMap" in volume:
            source = volume["configMap"]
            return await self._config_map_files(pod, source, source["name"], source.get("defaultMode", 0o644))
        if "downwardAPI" in volume:
            source = volume["downwardAPI"]
            return self._downward_files(pod, source.get("items", ()), source.get("defaultMode", 0o644))
        if "projected" in volume:
            return await self._projected_files(pod, volume)
        kinds = ", ".join(kind for kind in volume if kind != "name")
        raise MountError(f"the node does not mount volumes of the kind {kinds}")

    async def _secret_files(self, pod: Object, source: Object, name: str, mode: int) -> Payload:
        return secret_payload(source, await self._secret(pod["metadata"]["namespace"], name), name, mode)

    async def _config_map_files(self, pod: Object, source: Object, name: str, mode: int) -> Payload:
        return config_map_payload(source, await self._config_map(pod["metadata"]["namespace"], name), name, mode)

    def _downward_files(self, pod: Object, items: list[Object], mode: int) -> Payload:
        payload: Payload = {}
        for item in items:
            try:
                if "fieldRef" in item:
                    value = field_value(self._sources(pod["spec"]["containers"][0]), item["fieldRef"]["fieldPath"])
                else:
                    value = resource_value(self._sources(pod["spec"]["containers"][0]), item["resourceFieldRef"])
            except ConfigError as problem:
                raise MountError(str(problem)) from problem
            payload[item["path"]] = (value.encode(), item.get("mode", mode))
        return payload

    async def _projected_files(self, pod: Object, volume: Object) -> Payload:
        projected, payload = volume["projected"], {}
        mode = projected.get("defaultMode", 0o644)
        for index, source in enumerate(projected.get("sources", ())):
            if "serviceAccountToken" in source:
                wanted = source["serviceAccountToken"]
                token = await self._token(pod, f"{volume['name']}/{index}", wanted)
                payload[wanted["path"]] = (token.encode(), mode)
            elif "secret" in source:
                payload |= await self._secret_files(pod, source["secret"], source["secret"]["name"], mode)
            elif "configMap" in source:
                payload |= await self._config_map_files(pod, source["configMap"], source["configMap"]["name"], mode)
            elif "downwardAPI" in source:
                payload |= self._downward_files(pod, source["downwardAPI"].get("items", ()), mode)
            else:
                raise MountError(f"the node does not project {', '.join(source)}")
        return payload

    async def _token(self, pod: Object, key: str, wanted: Object) -> str:
        known = self._tokens.get(key)
        if known is not None and time.monotonic() < known.renew_at:
            return known.value
        lifetime = self._settings.token_lifetime or wanted.get("expirationSeconds", 3600)
        metadata = pod["metadata"]
        account = pod["spec"].get("serviceAccountName", "default")
        spec: Object = {
            "expirationSeconds": lifetime,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]},
        }
        if wanted.get("audience"):
            spec["audiences"] = [wanted["audience"]]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        try:
            answer = await self._api.create(path, body)
        except ApiError as problem:
            raise MountError(f"failed to fetch token: {problem}") from problem
        granted = answer["spec"]["expirationSeconds"]
        self._tokens[key] = _Token(answer["status"]["token"], time.monotonic() + 0.8 * min(granted, 24 * 3600))
        return self._tokens[key].value

    def next_renewal(self) -> float:
        """Seconds until a token has to be renewed; an hour when there is none."""
        return max(
            0.0,
            min((token.renew_at for token in self._tokens.values()), default=time.monotonic() + 3600)
            - time.monotonic(),
        )

    async def refresh(self, pod: Object) -> None:
        """Bring the volumes made of files up to date; what is missing now stays as it was, as with a kubelet."""
        for volume in pod["spec"].get("volumes", ()):
            if volume["name"] in self.ready and {"secret", "configMap", "downwardAPI", "projected"} & volume.keys():
                try:
                    payload = await self._payload(pod, volume)
                    await asyncio.to_thread(write_payload, self._directory / volume["name"], payload)
                except (MountError, ApiError, aiohttp.ClientError, OSError, TimeoutError) as problem:
                    _log.info("volume %s of %s: %s", volume["name"], pod["metadata"]["name"], problem)


def host_path(source: Object) -> Path:
    """The path of a hostPath volume after its type check.

    Raises:
        MountError: it is not what its type says.
    """
    path, kind = Path(source["path"]), source.get("type") or ""
    try:
        if kind == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True)
        elif kind == "FileOrCreate":
            path.touch()
    except OSError as problem:
        raise MountError(f"hostPath {path} cannot be created: {problem.strerror}") from problem
    if kind == "Directory" and not path.is_dir():
        raise MountError(f"hostPath type check failed: {path} is not a directory")
    if kind == "File" and not path.is_file():
        raise MountError(f"hostPath type check failed: {path} is not a file")
    if not path.exists():
        raise MountError(f"hostPath {path} does not exist")
    return path
