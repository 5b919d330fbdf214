"""The language of mapping files: exact amounts, strict dates, mistakes found before rows."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.cli.importing.expressions import (
    FILTERS,
    BadExpression,
    BadValue,
    Value,
    compile_template,
    date_time,
    minor_units,
)

COLUMNS = ["customer", "dollars"]
ROW: dict[str, Value] = {"customer": "00001", "dollars": "11.77", "line": 2, "row": 1, "null": None}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("shop", "shop"),
        ("customer-{customer}", "customer-00001"),
        ("{customer}-{line}-{row}!", "00001-2-1!"),
        ("{line}", 2),
        ("{null}", None),
        ("<{null}>", "<>"),
        ("{dollars|minor:2}", "1177"),
        ("{dollars|minor:2|int}", 1177),
        ("{dollars|replace:.:,}", "11,77"),
        ("{customer|pad:8}", "00000001"),
        ("{{{customer}}}", "{00001}"),
        ("", ""),
    ],
)
def test_a_template_keeps_the_type_of_a_lone_placeholder(source: str, value: object) -> None:
    assert compile_template(source, COLUMNS).value(ROW) == value


@pytest.mark.parametrize(
    ("name", "argument", "text", "value"),
    [
        ("strip", "", "  a ", "a"),
        ("lower", "", "Ab", "ab"),
        ("upper", "", "Ab", "AB"),
        ("name", "", "José  Müller/3", "Jos_M_ller_3"),
        ("default", "none", "", "none"),
        ("default", "none", "x", "x"),
        ("replace", "a:", "banana", "bnn"),
        ("replace", "a:b:c", "a", "b:c"),
        ("int", "", "-12", -12),
    ],
)
def test_filters_are_functions_of_their_text(
    name: str, argument: str, text: str, value: object
) -> None:
    assert FILTERS[name][0](text, argument) == value


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=2, min_value=-(10**30), max_value=10**30
    )
)
def test_minor_units_are_exact_at_any_size(amount: Decimal) -> None:
    assert int(minor_units(f"{amount:f}", "2")) == Fraction(amount) * 100


@pytest.mark.parametrize(
    ("text", "scale", "units"),
    [
        ("0.00", "2", "0"),
        ("-0.00", "2", "0"),
        ("+5", "2", "500"),
        (".5", "2", "50"),
        ("5.", "2", "500"),
        ("1.230000", "2", "123"),
        ("007", "0", "7"),
        ("0.0000000000000000000001", "22", "1"),
    ],
)
def test_minor_units_of_odd_spellings(text: str, scale: str, units: str) -> None:
    assert minor_units(text, scale) == units


@pytest.mark.parametrize(
    "text", ["", ".", "-", "1e5", "1,000.00", "\u0661", "0x1", " 1", "1.2.3", "--1"]
)
def test_what_is_no_plain_decimal_is_set_aside(text: str) -> None:
    with pytest.raises(BadValue, match="decimal number"):
        minor_units(text, "2")


def test_nothing_is_rounded() -> None:
    with pytest.raises(BadValue, match="more than 2 decimals"):
        minor_units("1.005", "2")


@pytest.mark.parametrize(
    ("text", "pattern", "moment"),
    [
        ("19970101", "%Y%m%d", "1997-01-01T00:00:00Z"),
        ("1.2.2020", "%d.%m.%Y", "2020-02-01T00:00:00Z"),
        ("2020-02-01 13:14:15.5", "%Y-%m-%d %H:%M:%S.%f", "2020-02-01T13:14:15.500000Z"),
        ("2020-02-01T00:30:00+0100", "%Y-%m-%dT%H:%M:%S%z", "2020-01-31T23:30:00Z"),
    ],
)
def test_times_are_utc_in_rfc_3339(text: str, pattern: str, moment: str) -> None:
    assert date_time(text, pattern) == moment


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("19970230", "%Y%m%d"), ("1997111", "%Y%m%d"), ("", "%Y%m%d"), ("01/02/97", "%Y-%m-%d")],
)
def test_times_that_are_none_or_ambiguous_are_set_aside(text: str, pattern: str) -> None:
    with pytest.raises(BadValue, match="is not a time"):
        date_time(text, pattern)


def test_integers_are_plain_digits() -> None:
    with pytest.raises(BadValue, match="not an integer"):
        FILTERS["int"][0]("1.0", "")


@pytest.mark.parametrize(
    ("source", "mistake"),
    [
        ("{custmer}", "there is no column 'custmer'"),
        ("{customer|minr:2}", "there is no filter 'minr'"),
        ("{dollars|minor}", "needs an argument"),
        ("{dollars|minor:two}", "a number up to 38"),
        ("{dollars|minor:39}", "a number up to 38"),
        ("{dollars|strip:x}", "takes no argument"),
        ("{dollars|replace:x}", "old:new"),
        ("{dollars|replace::x}", "old:new"),
        ("{dollars", "not closed"),
        ("dollars}", "not closed"),
    ],
)
def test_mistakes_are_found_before_any_row(source: str, mistake: str) -> None:
    with pytest.raises(BadExpression, match=mistake):
        compile_template(source, COLUMNS)
