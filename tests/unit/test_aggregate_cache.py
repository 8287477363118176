from __future__ import annotations

from google.protobuf.wrappers_pb2 import Int64Value

from cqrs.commit.aggregates import AggregateCache, LoadedAggregate


def loaded(version: int) -> LoadedAggregate:
    return LoadedAggregate("counter", Int64Value(value=version), version)


def test_the_aggregates_that_were_not_used_for_longest_are_forgotten_first() -> None:
    cache = AggregateCache(3)
    for aggregate_id in ("a", "b", "c"):
        cache.put(aggregate_id, loaded(1))
    assert cache.get("a") is not None
    cache.put("b", loaded(2))

    cache.put("d", loaded(1))

    assert cache.get("c") is None
    assert [found.version for each in ("a", "b", "d") if (found := cache.get(each)) is not None] == [1, 2, 1]
    assert len(cache) == 3


def test_what_others_have_changed_is_forgotten_whether_it_is_here_or_not() -> None:
    cache = AggregateCache(3)
    cache.put("a", loaded(1))
    cache.put("b", loaded(1))

    cache.evict(["a", "unknown"])

    assert cache.get("a") is None
    assert cache.get("b") is not None
    cache.clear()
    assert len(cache) == 0
