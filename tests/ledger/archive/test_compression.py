"""What is compressed comes back whole, or not at all."""

import pytest

from ledger.archive.compression import compress, decompress

DATA = b'{"at":1763811000123,"data":"8d1f","task":"01996abc-2400-7000-8000-0000000000a7"}' * 9


def test_data_comes_back() -> None:
    assert decompress(compress(DATA)) == DATA
    assert decompress(compress(b"")) == b""


def test_every_changed_bit_is_noticed() -> None:
    packed = compress(DATA)
    for at in range(len(packed)):
        for bit in range(8):
            changed = bytearray(packed)
            changed[at] ^= 1 << bit
            with pytest.raises(ValueError, match="damaged"):
                decompress(bytes(changed))


@pytest.mark.parametrize("changed", [compress(DATA)[:-1], compress(DATA) + b"\0", b""])
def test_what_was_cut_or_grew_is_noticed(changed: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        decompress(changed)
