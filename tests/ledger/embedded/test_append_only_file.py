"""A cut-off end is told from damage by framing alone."""

from itertools import accumulate

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ledger.embedded.append_only_file import Damaged, Torn, Whole, examine


def command(*arguments: bytes) -> bytes:
    bulks = (b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments)
    return b"*%d\r\n" % len(arguments) + b"".join(bulks)


def transaction(*commands: bytes) -> bytes:
    return command(b"MULTI") + b"".join(commands) + command(b"EXEC")


COMMANDS = st.lists(st.binary(max_size=40), max_size=4).map(lambda rest: command(b"HSET", *rest))
UNITS = COMMANDS | st.lists(COMMANDS, min_size=1, max_size=3).map(lambda some: transaction(*some))
UNIT = transaction(command(b"HSET", b"key", b"field", b"1"), command(b"XADD", b"s", b"1-0"))


@given(st.lists(UNITS, min_size=1, max_size=4), st.data(), st.integers(0, 200_000))
def test_any_prefix_is_whole_or_torn_at_its_last_whole_transaction(
    units: list[bytes], data: st.DataObject, zeros: int
) -> None:
    content = b"".join(units)
    cut = data.draw(st.integers(0, len(content)))
    boundary = max(end for end in accumulate(map(len, units), initial=0) if end <= cut)

    verdict = examine(content[:cut] + bytes(zeros))

    assert verdict == (Whole() if cut == boundary and zeros == 0 else Torn(boundary))


@given(st.integers(0, len(UNIT) - 1), st.integers(0, 255))
def test_a_changed_byte_before_whole_transactions_is_never_taken_for_a_torn_end(
    at: int, byte: int
) -> None:
    assume(UNIT[at] != byte)
    changed = UNIT[:at] + bytes([byte]) + UNIT[at + 1 :]

    verdict = examine(UNIT + changed + UNIT + UNIT)

    assert not isinstance(verdict, Torn)


def test_a_length_that_swallows_the_rest_is_damage() -> None:
    content = UNIT + UNIT.replace(b"$4\r\nHSET", b"$9999\r\nHSET") + UNIT

    assert examine(content) == Damaged(len(UNIT), content.index(b"*4\r\n$9999"))


def test_zero_bytes_with_data_behind_them_are_damage() -> None:
    assert examine(UNIT + bytes(4096) + UNIT) == Damaged(len(UNIT), len(UNIT))


def test_other_bytes_behind_the_last_transaction_are_damage() -> None:
    assert examine(UNIT + b"old contents of the disk") == Damaged(len(UNIT), len(UNIT))


@pytest.mark.parametrize("stray", [b"EXEC", b"multi"])
def test_a_transaction_out_of_step_is_damage(stray: bytes) -> None:
    opened = command(b"MULTI") if stray == b"multi" else b""

    verdict = examine(UNIT + opened + command(stray) + UNIT)

    assert verdict == Damaged(len(UNIT), len(UNIT + opened))


def test_a_command_that_the_server_refused_is_damage_where_it_stands() -> None:
    content = UNIT + UNIT.replace(b"XADD", b"XADE") + UNIT

    assert examine(content, refused=b"XADE") == Damaged(
        len(UNIT), content.index(b"*3\r\n$4\r\nXADE")
    )


def test_annotations_between_commands_are_part_of_the_file() -> None:
    assert examine(b"#TS:1700000000\r\n" + UNIT) == Whole()
    assert examine(UNIT + b"#TS:17") == Torn(len(UNIT))


def test_reading_can_start_where_the_check_tool_stopped() -> None:
    assert examine(b"not looked at" + UNIT + UNIT[:-1], start=13) == Torn(13 + len(UNIT))
