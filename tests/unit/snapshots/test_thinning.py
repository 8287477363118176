from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cqrs.snapshots.thinning import OTHER_FINGERPRINTS, Held, surplus, to_delete

versions = st.lists(st.integers(1, 10**6), min_size=1, max_size=60)

OURS = b"ours"

helds = st.lists(
    st.builds(
        Held, st.sampled_from([OURS, b"theirs", b"older", b"oldest", b"ancient"]), st.integers(1, 99), st.booleans()
    ),
    unique_by=lambda each: (each.fingerprint, each.version),
    max_size=60,
)


@given(versions, st.integers(1, 20))
def test_what_is_left_is_as_many_as_may_stay_and_the_newest_among_them(given_: list[int], keep: int) -> None:
    given_up = surplus(given_, keep)
    left = set(given_) - set(given_up)
    assert set(given_up) <= set(given_)
    assert len(left) == min(keep, len(set(given_)))
    assert max(given_) in left


@given(versions, st.integers(-5, 0))
def test_the_newest_stays_even_if_none_is_to_be_kept(given_: list[int], keep: int) -> None:
    assert set(given_) - set(surplus(given_, keep)) == {max(given_)}


@given(st.integers(2, 12), st.integers(1, 400), st.integers(1, 500))
def test_what_is_left_of_even_steps_lies_evenly(keep: int, steps: int, every: int) -> None:
    kept: list[int] = []
    for version in range(every, every * (steps + 1), every):
        kept.append(version)
        for given_up in surplus(kept, keep):
            kept.remove(given_up)
    gaps = [later - earlier for earlier, later in zip([0, *kept], kept, strict=False)]
    assert max(gaps) <= max(every, 2 * kept[-1] / keep)


@given(helds, st.integers(1, 5))
def test_nothing_of_another_history_stays(held: list[Held], keep: int) -> None:
    left = set(held) - set(to_delete(held, OURS, keep))
    assert all(each.in_log for each in left)


@given(helds, st.integers(1, 5))
def test_no_releases_newest_is_deleted_by_one_that_runs_beside_it(held: list[Held], keep: int) -> None:
    doomed = to_delete(held, OURS, keep)
    assert set(doomed) <= set(held)
    left = [each for each in held if each not in doomed]
    ours = {each.version for each in left if each.fingerprint == OURS}
    had = {each.version for each in held if each.fingerprint == OURS and each.in_log}
    assert ours == had - set(surplus(had, keep))
    newest = {each.fingerprint: 0 for each in held if each.in_log and each.fingerprint != OURS}
    for each in held:
        if each.fingerprint in newest and each.in_log:
            newest[each.fingerprint] = max(newest[each.fingerprint], each.version)
    furthest = sorted(newest, key=lambda other: (newest[other], other), reverse=True)[:OTHER_FINGERPRINTS]
    others = {(each.fingerprint, each.version) for each in left if each.fingerprint != OURS}
    assert others == {(other, newest[other]) for other in furthest}
