"""RowSet: what a batch sees, and what it leaves in the database."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from cqrs.database.engine import open_engine
from cqrs.projection.rows import RowSet
from cqrs.projection.view import Key, View

metadata = sa.MetaData()


class PetRow(NamedTuple):
    """A row of `pets`."""

    species: str
    number: int
    owner: str
    name: str


pets = sa.Table(
    "pets",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("species", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
)
PETS = View(pets, PetRow, lambda key: f"pets:{key[0]}-{key[1]}")
CAT, DOG = PetRow("cat", 1, "ada", "Tib"), PetRow("dog", 1, "ada", "Rex")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sa.Connection]:
    engine = open_engine(f"sqlite:///{tmp_path / 'read.db'}", access="write")
    metadata.create_all(engine)
    with engine.connect() as connection, connection.begin():
        PETS.upsert(connection, 1, [CAT, DOG])
        PETS.upsert(connection, 2, [CAT._replace(name="of another generation")])
        yield connection
    engine.dispose()


def on(connection: sa.Connection) -> tuple[RowSet, list[Collection[Key]]]:
    asked: list[Collection[Key]] = []

    def load(view: View[Any], keys: Collection[Key]) -> list[tuple[Any, ...]]:
        asked.append(list(keys))
        return view.load(connection, 1, keys)

    return RowSet(load), asked


def stored(connection: sa.Connection) -> set[PetRow]:
    return set(PETS.load_all(connection, 1))


def test_rows_are_read_once_and_only_those_of_the_generation(connection: sa.Connection) -> None:
    rows, asked = on(connection)
    rows.preload({PETS: [("cat", 1), ("fish", 1)]})
    rows.preload({PETS: [("cat", 1), ("dog", 1)]})
    assert rows.get(PETS, "cat", 1) == CAT
    assert rows.get(PETS, "fish", 1) is None
    assert rows.get(PETS, "dog", 1) == DOG
    assert [set(keys) for keys in asked] == [{("cat", 1), ("fish", 1)}, {("dog", 1)}]


def test_a_row_that_was_not_announced_is_loaded_when_asked_for(connection: sa.Connection) -> None:
    rows, asked = on(connection)
    assert rows.get(PETS, "dog", 1) == DOG
    assert asked == [[("dog", 1)]]


def test_puts_and_deletes_are_written_and_told(connection: sa.Connection) -> None:
    rows, _ = on(connection)
    rows.put(PETS, CAT._replace(name="Tibbles"))
    rows.put(PETS, PetRow("fish", 7, "bob", "Wanda"))
    rows.delete(PETS, "dog", 1)
    assert rows.get(PETS, "dog", 1) is None
    assert rows.write(connection, 1) == {"pets:cat-1", "pets:fish-7", "pets:dog-1"}
    assert stored(connection) == {CAT._replace(name="Tibbles"), PetRow("fish", 7, "bob", "Wanda")}
    assert PETS.load_all(connection, 2) == [CAT._replace(name="of another generation")]


def test_an_update_reaches_rows_that_the_batch_holds_and_rows_that_it_does_not(connection: sa.Connection) -> None:
    rows, _ = on(connection)
    rows.put(PETS, PetRow("fish", 1, "ada", "Wanda"))
    assert rows.get(PETS, "cat", 1) == CAT
    rows.update_where(PETS, "owner", "ada", name="(renamed)")
    assert rows.get(PETS, "fish", 1) == PetRow("fish", 1, "ada", "(renamed)")
    assert rows.get(PETS, "cat", 1) == CAT._replace(name="(renamed)")
    rows.put(PETS, PetRow("fish", 2, "ada", "later"))
    assert rows.write(connection, 1) == {"pets:cat-1", "pets:dog-1", "pets:fish-1", "pets:fish-2"}
    assert stored(connection) == {
        CAT._replace(name="(renamed)"),
        DOG._replace(name="(renamed)"),
        PetRow("fish", 1, "ada", "(renamed)"),
        PetRow("fish", 2, "ada", "later"),
    }


def test_a_row_loaded_after_an_update_shows_the_update(connection: sa.Connection) -> None:
    rows, _ = on(connection)
    rows.update_where(PETS, "owner", "ada", name="first")
    rows.update_where(PETS, "owner", "ada", name="second")
    dog = rows.get(PETS, "dog", 1)
    assert dog is not None
    assert dog.name == "second"
    rows.put(PETS, dog._replace(owner="bob"))
    rows.update_where(PETS, "owner", "ada", name="third")
    rows.update_where(PETS, "owner", "bob", name="of bob")
    rows.write(connection, 1)
    assert stored(connection) == {CAT._replace(name="third"), DOG._replace(owner="bob", name="of bob")}


def test_an_update_that_changes_nothing_is_not_told(connection: sa.Connection) -> None:
    rows, _ = on(connection)
    rows.update_where(PETS, "owner", "ada", name="Rex")
    assert rows.write(connection, 1) == {"pets:cat-1"}


def test_without_a_database_the_set_is_the_read_model() -> None:
    rows = RowSet()
    rows.preload({PETS: [("cat", 1)]})
    assert rows.get(PETS, "cat", 1) is None
    rows.put(PETS, CAT)
    rows.put(PETS, DOG)
    rows.delete(PETS, "dog", 1)
    assert rows.contents(PETS) == {("cat", 1): CAT}


def test_rows_are_found_by_their_index(connection: sa.Connection) -> None:
    plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + PETS._select, ('[["cat", 1]]', 1)).all()
    assert any("SEARCH t USING INDEX" in row[3] for row in plan), plan


def test_a_row_type_that_does_not_fit_its_table_is_refused() -> None:
    class Wrong(NamedTuple):
        species: str
        name: str

    with pytest.raises(TypeError, match="Wrong is not a row of pets"):
        View(pets, Wrong, str)
