"""Which snapshots of an aggregate to keep when there are too many of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

OTHER_FINGERPRINTS = 2
"""Of so many other releases the newest snapshot is kept too: one may run beside this one, or be gone back to."""


class Held(NamedTuple):
    """A snapshot of an aggregate that the write DB has."""

    fingerprint: bytes
    version: int
    in_log: bool
    """Whether it is of this history: the log has the event that it ends with."""


def to_delete(held: Iterable[Held], fingerprint: bytes, keep: int) -> list[Held]:
    """What to delete of one aggregate's snapshots after some with this fingerprint were written.

    All that are not of this history; of those with this fingerprint what is more than `keep`; of those with others,
    which this release cannot use, all but the newest of each of the two that have come furthest. Releases that run side
    by side never delete each other's newest: else they would take it anew by turns, for ever.
    """
    doomed: list[Held] = []
    versions: dict[bytes, list[int]] = {fingerprint: []}
    for each in held:
        if each.in_log:
            versions.setdefault(each.fingerprint, []).append(each.version)
        else:
            doomed.append(each)
    doomed += (Held(fingerprint, version, True) for version in surplus(versions.pop(fingerprint), keep))
    others = sorted(versions, key=lambda other: (max(versions[other]), other), reverse=True)
    for place, other in enumerate(others):
        given_up = surplus(versions[other], 1) if place < OTHER_FINGERPRINTS else versions[other]
        doomed += (Held(other, version, True) for version in given_up)
    return doomed


def surplus(versions: Collection[int], keep: int) -> list[int]:
    """The versions to give up so that `keep` are left (at least the newest).

    The newest always stays, since commands load it. Of the others, the one goes, again and again, without which the gap
    that it leaves is smallest: what is left lies evenly over the aggregate's life, so that looking at an old version
    folds about `newest / keep` events, and at most twice that where they came evenly. Of equal gaps the oldest goes.
    """
    kept = sorted(set(versions))
    given_up: list[int] = []
    while len(kept) > max(1, keep):
        before = [0, *kept[:-2]]
        after = kept[1:]
        gaps = [later - earlier for earlier, later in zip(before, after, strict=True)]
        given_up.append(kept.pop(gaps.index(min(gaps))))
    return given_up
