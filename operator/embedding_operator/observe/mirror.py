"""What the watches have delivered, kept small: the objects a look at a service needs, without a request.

A mirror is always a little behind the API server. It is made for seeing that nothing has to be done, which is what most
looks come to; whoever wants to write reads what it is about to change from the API server first (`control.reconciler`).
What this process wrote or read itself goes into the mirror at once, and no older version ever replaces a newer one, so
that the echo of an own write is no news.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from embedding_operator.api.constants import FIELD_MANAGER, KIND, SERVICE_LABEL
from embedding_operator.api.kinds import EMBEDDING_SERVICES, PODS, Resource
from embedding_operator.cluster import ClusterError, Object
from embedding_operator.observe.follow import Key, key_of
from embedding_operator.observe.pods import pod_state
from embedding_operator.observe.snapshot import PodState

REMEMBERED_DELETIONS: Final = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as it is kept: its text, or for a Pod only what judging needs."""

    uid: str
    version: str
    service: str
    """Name of the EmbeddingService it belongs to, as its owner reference says, or else its label."""
    content: bytes | PodState


def service_of(live: Mapping[str, Any], resource: Resource) -> str:
    """The name of the EmbeddingService an object belongs to; its label may be of another one, or gone. Pure."""
    metadata = live["metadata"]
    if resource.kind == KIND:
        return str(metadata["name"])
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller") and reference.get("kind") == KIND:
            return str(reference["name"])
    return str((metadata.get("labels") or {}).get(SERVICE_LABEL) or "")


def _is_owned(live: Mapping[str, Any]) -> bool:
    references = live["metadata"].get("ownerReferences") or ()
    return any(reference.get("controller") and reference.get("kind") == KIND for reference in references)


def is_newer(version: str, than: str) -> bool:
    """Whether a resourceVersion is a later one. Those of one kind are ordered numbers (API conventions, 1.35); what is
    no number is only told apart. Pure."""
    if version.isdecimal() and than.isdecimal():
        return int(version) > int(than)
    return version != than


_FOREIGN_METADATA: Final = ("name", "namespace", "uid", "resourceVersion", "ownerReferences", "deletionTimestamp")
"""All that is asked of an object that no EmbeddingService owns: that it is there, and whose it is."""


def slim(live: Mapping[str, Any], resource: Resource) -> bytes:
    """An object's text without the field managers nobody asks about, and of somebody else's object only whose it is: a
    label of ours may stand on anything, of any size. Pure."""
    metadata = dict(live["metadata"])
    if resource is not EMBEDDING_SERVICES and not _is_owned(live):
        metadata = {name: metadata[name] for name in _FOREIGN_METADATA if name in metadata}
        return orjson.dumps({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata})
    managers = metadata.pop("managedFields", None) or ()
    if resource is not EMBEDDING_SERVICES:
        # What of a child is still ours decides whether it is applied again, and how `replicas` changes hands.
        ours = [entry for entry in managers if entry.get("manager") == FIELD_MANAGER]
        # Where nothing is ours any more, that others have set it must stay visible.
        metadata["managedFields"] = ours or [{"manager": entry.get("manager")} for entry in managers[:1]]
    return orjson.dumps({**live, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata})


@dataclass(slots=True)
class Shelf:
    """All mirrored objects of one kind."""

    resource: Resource
    on_news: Callable[[Key], None]
    entries: dict[Key, Entry] = field(default_factory=dict)
    by_service: defaultdict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _deleted: OrderedDict[str, str] = field(default_factory=OrderedDict)
    """Uid -> resourceVersion of its deletion. What was read before that must not bring it back."""

    def put(self, live: Object) -> None:
        """This object exists as it is here, unless something newer is known."""
        metadata = live["metadata"]
        key = key_of(live)
        uid, version = str(metadata["uid"]), str(metadata["resourceVersion"])
        before = self.entries.get(key)
        known = before.version if before is not None and before.uid == uid else self._deleted.get(uid)
        if known is not None and not is_newer(version, known):
            return
        content = pod_state(live) if self.resource is PODS else slim(live, self.resource)
        entry = Entry(uid, version, service_of(live, self.resource), content)
        if self.resource is PODS:
            # A Pod's owner is a ReplicaSet; the label is how it is found, `belongs_to` is how it is believed.
            entry = Entry(uid, version, str((metadata.get("labels") or {}).get(SERVICE_LABEL) or ""), content)
        self._remove(key)
        self.entries[key] = entry
        self.by_service[key[0], entry.service].add(key)
        self._tell(key, before, entry)

    def forget(self, live: Object) -> None:
        """This object is gone, or lost the label by which it is watched; should it get it back, it is newer then."""
        metadata = live["metadata"]
        uid = str(metadata["uid"])
        self._deleted[uid] = str(metadata["resourceVersion"])
        while len(self._deleted) > REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        key = key_of(live)
        before = self.entries.get(key)
        if before is not None and before.uid == uid:
            self.drop(key)

    def drop(self, key: Key) -> None:
        """There is no object of this name."""
        before = self.entries.get(key)
        if before is not None:
            self._remove(key)
            self._tell(key, before)

    def _remove(self, key: Key) -> None:
        before = self.entries.pop(key, None)
        if before is None:
            return
        group = (key[0], before.service)
        self.by_service[group].discard(key)
        if not self.by_service[group]:
            del self.by_service[group]

    def _tell(self, key: Key, *entries: Entry | None) -> None:
        for service in {entry.service for entry in entries if entry is not None and entry.service}:
            self.on_news((key[0], service))


@dataclass(slots=True)
class Scope:
    """One kind in one namespace (None: all), as `observe.follow` reports it. Implements its `Sink`."""

    shelf: Shelf
    namespace: str | None
    clock: Callable[[], float]
    limit: float
    """Seconds of silence after which what is known is not relied on."""
    heard_at: float
    filled: bool = False
    """Whether what is known was complete and has been followed since."""
    listed: bool = False
    """Whether everything has been seen once."""
    forbidden: str | None = None
    """Why this kind may not be read, in the API server's words, as long as that is its answer."""

    def keep(self, keys: Set[Key], version: str) -> None:
        for key, entry in list(self.shelf.entries.items()):
            # What came after the list was made is not missing from it.
            if self.namespace in (None, key[0]) and key not in keys and not is_newer(entry.version, version):
                self.shelf.drop(key)
        self.filled = self.listed = True
        self.forbidden = None

    def put(self, live: Object, *, gone: bool = False) -> None:
        if gone:
            self.shelf.forget(live)
        else:
            self.shelf.put(live)

    def heard(self) -> None:
        self.heard_at = self.clock()

    def refused(self, error: ClusterError) -> None:
        if error.not_found:
            # The API of this kind, or the namespace, is not there: there are none.
            for key in [key for key in self.shelf.entries if self.namespace in (None, key[0])]:
                self.shelf.drop(key)
            self.filled = self.listed = True
            self.forbidden = None
        elif error.status != 410:
            self.filled = False
            self.forbidden = error.message if error.forbidden else None


class Mirror:
    """Every kind that is looked at, in every namespace that is served. Belongs to one event loop.

    `limits` has, for each kind, how many seconds its watch may be silent before what it delivered is not relied on any
    more. `on_news` is told the service whose objects changed.
    """

    def __init__(
        self,
        limits: Mapping[Resource, float],
        namespaces: Iterable[str | None],
        *,
        clock: Callable[[], float],
        on_news: Callable[[Key], None],
    ) -> None:
        self._clock = clock
        self.shelves = {resource: Shelf(resource, on_news) for resource in limits}
        self.scopes = {
            (resource, namespace): Scope(shelf, namespace, clock, limits[resource], clock())
            for namespace in namespaces
            for resource, shelf in self.shelves.items()
        }

    def fresh(self, namespace: str) -> bool:
        """Whether everything of this namespace that may be read has been listed and all its watches were heard lately.
        Of kinds that may not be read, `unread` tells."""
        now = self._clock()
        return all(
            (scope.filled or (scope.forbidden is not None and kind is not EMBEDDING_SERVICES))
            and now - scope.heard_at < scope.limit
            for (kind, where), scope in self.scopes.items()
            if where in (None, namespace)
        )

    def unread(self, resource: Resource, namespace: str) -> str | None:
        """Why objects of this kind may not be read there; None when they may."""
        scopes = (self.scopes.get((resource, where)) for where in (None, namespace))
        return next((scope.forbidden for scope in scopes if scope is not None and scope.forbidden is not None), None)

    def ages(self) -> dict[str, float]:
        """Plural of each kind -> seconds since its quietest watch was heard."""
        now = self._clock()
        ages: dict[str, float] = {}
        for (resource, _), scope in self.scopes.items():
            ages[resource.plural] = max(ages.get(resource.plural, 0.0), now - scope.heard_at)
        return ages

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """An object other than a Pod, as it was last seen; the caller may change what it is given."""
        entry = self.shelves[resource].entries.get((namespace, name))
        if entry is None or isinstance(entry.content, PodState):
            return None
        live: Object = orjson.loads(entry.content)
        return live

    def pods(self, namespace: str, service: str) -> tuple[PodState, ...]:
        """The Pods that carry the label of this service, by name."""
        shelf = self.shelves[PODS]
        keys = sorted(shelf.by_service.get((namespace, service), ()))
        contents = (shelf.entries[key].content for key in keys)
        return tuple(content for content in contents if isinstance(content, PodState))

    def learn(self, resource: Resource, live: Mapping[str, Any]) -> None:
        """Something this process read or wrote itself. What the watch would not show is not kept."""
        shelf = self.shelves.get(resource)
        labels = live["metadata"].get("labels") or {}
        if shelf is not None and (resource is EMBEDDING_SERVICES or SERVICE_LABEL in labels):
            shelf.put(dict(live))
