"""A salt is known from nothing but the secret, and where the leaf stands."""

from ledger.archive.salts import Salts
from ledger.archive.tiles import SALT_BYTES, TILE_WIDTH

SECRET = b"s" * 32
FIRST = "1763811000123-0"


def test_no_two_leaves_of_a_bundle_have_one_salt():
    salts = Salts(SECRET, 0).of_bundle(FIRST)
    assert len(salts) == len(set(salts)) == TILE_WIDTH
    assert {len(salt) for salt in salts} == {SALT_BYTES}


def test_salts_are_the_same_whoever_makes_them():
    assert Salts(SECRET, 3).of_bundle(FIRST) == Salts(SECRET, 3).of_bundle(FIRST)


def test_another_secret_partition_or_bundle_has_other_salts():
    made = {
        salt
        for secret in (SECRET, b"t" * 32)
        for partition in (0, 1)
        for first in (FIRST, "1763811000123-1")
        for salt in Salts(secret, partition).of_bundle(first)
    }
    assert len(made) == 8 * TILE_WIDTH
