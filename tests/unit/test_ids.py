from __future__ import annotations

import os
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


def test_a_forked_process_gives_no_id_that_its_parent_gives() -> None:
    new_id()  # has prepared more than it took
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    os.close(writing)
    ours = {new_id()[14:] for _ in range(100)}
    with os.fdopen(reading) as told:
        theirs = told.read()
    assert os.waitpid(child, 0)[1] == 0
    assert len(theirs) == 100 * 36
    assert not {theirs[at + 14 : at + 36] for at in range(0, len(theirs), 36)} & ours
