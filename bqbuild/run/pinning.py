"""What a user means by the name of a pin: an environment, a model as it is now, or a digest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bqbuild.core.errors import UsageError, did_you_mean
from bqbuild.core.hashing import Digest
from bqbuild.core.records import NodeName
from bqbuild.run.session import Session
from bqbuild.store.base import Pointer


def change_pins(session: Session, pinned: Sequence[str], unpinned: Sequence[str]) -> list[str]:
    """Pin and unpin; the names of the pins that changed. Raises UsageError for a name that means nothing."""
    known = session.store.pins.read()
    added = dict(_meant(session, name) for name in pinned)
    removed = [name if name in known else _full(session, name) for name in unpinned]
    for given, name in zip(unpinned, removed, strict=True):
        if name not in known:
            pins = f"pins are {', '.join(sorted(known))}" if known else "nothing is pinned"
            hint = did_you_mean(given, known) or pins
            raise UsageError(f"there is no pin `{given}`", hint=hint)
    if added or removed:
        session.store.pins.change(added, removed)
    return [*added, *removed]


def _meant(session: Session, name: str) -> tuple[str, list[Digest]]:
    """The pin's name, and the traces and tables that it keeps: as they are now."""
    store = session.store
    environments = store.environments.names()
    for environment in (name, _full(session, name)):
        if environment in environments:
            return environment, _digests(store.environments.read(environment).values())
    pointer = session.pointers().get(NodeName(name))
    if pointer is not None:
        return name, _digests([pointer])
    digest = Digest(name)
    if len(name) == 32 and (store.tables.find(digest) is not None or store.traces.find([digest])):
        return name, [digest]
    known = [*environments, *session.pointers()]
    raise UsageError(
        f"there is no environment, built model or table `{name}` to pin",
        hint=did_you_mean(name, known) or f"environments are {', '.join(environments) or 'none'}",
    )


def _full(session: Session, name: str) -> str:
    return name if "/" in name else f"{session.project.name}/{name}"


def _digests(pointers: Iterable[Pointer]) -> list[Digest]:
    found = [digest for pointer in pointers for digest in (pointer.trace, *pointer.tables.values())]
    return list(dict.fromkeys(found))
