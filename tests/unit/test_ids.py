from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from cqrs.ids import PARTITIONS, new_id, partition_of


def test_an_id_is_a_uuid_of_version_7_in_canonical_form() -> None:
    for _ in range(2000):
        made = new_id()
        parsed = UUID(made)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, RFC_4122, made)


def test_ids_differ_also_between_threads_and_sort_by_time() -> None:
    first = new_id()
    with ThreadPoolExecutor(4) as threads:
        made = [each for part in threads.map(lambda _: [new_id() for _ in range(3000)], range(4)) for each in part]
    assert len(set(made)) == 12_000
    assert all(each[:13] >= first[:13] for each in made)


def test_the_partition_of_an_id_never_changes_as_it_is_stored_in_subjects() -> None:
    assert [partition_of(each) for each in ("a", "order-1", "ä")] == [3, 47, 3]
    assert all(0 <= partition_of(new_id()) < PARTITIONS for _ in range(1000))
