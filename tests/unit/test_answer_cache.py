"""The cache against every order in which commits, notifications and reads can meet."""

from __future__ import annotations

import asyncio
import random

import pytest

from cqrs.tokens import ConsistencyToken, decode_token
from orderstream.orders.v1.queries_pb2 import GetOrderResponse
from query_server.cache import AnswerCache
from query_server.freshness import FreshnessTails, LogHead
from query_server.reader import Snapshot
from query_server.tracker import ProjectionTracker

EPOCH = "11111111-2222-7333-8444-555555555555"


def snapshot(position: int) -> Snapshot:
    return Snapshot(source=1, generation=1, epoch=EPOCH, position=position, record_time=position)


def connected_cache() -> tuple[ProjectionTracker, AnswerCache]:
    tracker = ProjectionTracker("orders", clock=lambda: 0.0)
    cache = AnswerCache(tracker, max_bytes=1 << 20, ttl_seconds=60)
    tracker.end_read(tracker.begin_read(), snapshot(1))
    tracker.feed_began()
    return tracker, cache


def test_a_read_that_another_has_taken_the_place_of_is_not_kept() -> None:
    async def scenario() -> None:
        tracker, cache = connected_cache()
        reads: list[asyncio.Future[tuple[Snapshot, bytes | None]]] = []

        async def load() -> tuple[Snapshot, bytes | None]:
            reads.append(asyncio.get_running_loop().create_future())
            return await reads[-1]

        first = asyncio.create_task(cache.fetch("k", load))
        await asyncio.sleep(0.01)
        tracker.notified(generation=1, epoch=EPOCH, first=1, last=2, keys=["k"], record_time=2)
        second = asyncio.create_task(cache.fetch("k", load))
        await asyncio.sleep(0.01)
        tracker.notified(generation=1, epoch=EPOCH, first=2, last=3, keys=["k"], record_time=3)
        reads[0].set_result((snapshot(2), b"as of 2"))  # it began before 2, and read after it
        await first
        assert cache.get("k") is None
        reads[1].set_result((snapshot(3), b"as of 3"))
        await second
        kept = cache.get("k")
        assert kept is not None
        assert kept.body == b"as of 3"

    asyncio.run(scenario())


class Model:
    """A read DB that commits, is told of late or never, and whose reads take their time."""

    KEYS = ("a", "b", "c")

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.tracker, self.cache = connected_cache()
        self.tails = FreshnessTails(self.tracker, LogHead(clock=lambda: 0.0), clock=lambda: 0.0)
        self.position = 1
        self.versions = {1: dict.fromkeys(self.KEYS, 1)}
        """By position: what each key's row shows."""
        self.untold: list[tuple[int, int, str]] = []
        self.served = 0
        """Answers from the cache."""

    def commit(self) -> None:
        key = self.dice.choice(self.KEYS)
        before, self.position = self.position, self.position + 1
        self.versions[self.position] = {**self.versions[before], key: self.position}
        if self.dice.random() < 0.97:  # else the notification is lost
            self.untold.append((before, self.position, key))

    def tell(self) -> None:
        if self.untold:
            first, last, key = self.untold.pop(0)
            self.tracker.notified(generation=1, epoch=EPOCH, first=first, last=last, keys=[key], record_time=last)

    def reconnect(self) -> None:
        self.tracker.feed_ended()
        self.untold.clear()
        self.tracker.feed_began()

    def poll(self) -> None:
        self.tracker.end_read(self.tracker.begin_read(), snapshot(self.position))

    async def load(self, key: str) -> tuple[Snapshot, bytes | None]:
        for _ in range(self.dice.randint(0, 3)):
            await asyncio.sleep(0)
        at = self.position
        for _ in range(self.dice.randint(0, 6)):
            await asyncio.sleep(0)
        return snapshot(at), str(self.versions[at][key]).encode()

    async def read(self) -> None:
        """A client reads, with the token of the newest commit or without one."""
        key = self.dice.choice(self.KEYS)
        seen = self.dice.choice([1, self.position])
        reached = self.tracker.reached
        answer = self.cache.get(key, ConsistencyToken(EPOCH, seen) if seen > 1 else None)
        if answer is not None:
            self.served += 1
            assert int(answer.body or b"0") >= self.versions[reached][key], "it hides what notifications have told"
            tail = GetOrderResponse.FromString(self.tails.cached(answer))
            carried = decode_token(tail.consistency_token).position
            assert carried >= seen, "its token goes back behind the client's"
            assert int(answer.body or b"0") >= self.versions[carried][key], "its token claims more than it shows"
            assert tail.freshness.as_of_position == carried
        else:
            answer = await self.cache.fetch(key, lambda: self.load(key))
            while answer.snapshot.position < seen:
                answer = await self.cache.fetch(key, lambda: self.load(key))
        assert int(answer.body or b"0") >= self.versions[seen][key], "it hides what the client has seen"


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_order_of_commits_notifications_and_reads_no_answer_hides_what_was_seen(seed: int) -> None:
    async def scenario() -> None:
        model = Model(random.Random(seed))
        steps = (model.commit, model.tell, model.reconnect, model.poll, None)
        readers = []
        for _ in range(1_500):
            step = model.dice.choices(steps, weights=(15, 20, 1, 1, 63))[0]
            if step is not None:
                step()
            elif model.dice.random() < 0.5:
                readers.append(asyncio.create_task(model.read()))
            await asyncio.sleep(0)
        await asyncio.gather(*readers)
        assert model.served > 50

    asyncio.run(scenario())
