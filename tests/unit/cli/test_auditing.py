"""What the audit finds in views that are wrong."""

from __future__ import annotations

from cli.auditing.view_audit import first_difference


def test_the_first_difference_names_row_column_and_both_values() -> None:
    columns = ("id", "name", "total")
    expected = {("a",): ("a", "Ada", 1), ("b",): ("b", "Bob", 2), ("c",): ("c", "Cy", 3)}
    assert first_difference(columns, expected, dict(expected)) == ""
    wrong = {**expected, ("b",): ("b", "Bob", 5), ("c",): ("c", "Di", 3)}
    assert first_difference(columns, expected, wrong) == "row b, column total: 5 instead of 2 (2 rows differ)"
    assert first_difference(columns, expected, {("a",): ("a", "Ada", 1)}) == "row b is missing (2 rows differ)"
    assert first_difference(columns, {}, {("z",): ("z", "Zoe", 0)}) == "row z should not be there"
