"""Which URLs a task may be submitted with, and which addresses a name may lead to."""

from ipaddress import ip_address

import pytest

from ledger.allow_list import AllowList, is_public, parse_entry
from ledger.settings import Settings

USUAL = Settings().callback_hosts


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "https://localhost",
        "HTTP://LOCALHOST:8082/x?y=z",
        "http://127.0.0.1:8082/api/v1/tasks/{task_id}/callback",
        "http://127.9.9.9/",
        "http://[::1]:8082/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[::ffff:127.0.0.1]/",
    ],
)
def test_loopback_is_allowed_unless_set_otherwise(url: str):
    assert AllowList(USUAL).allows_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[64:ff9b::7f00:1]/",
        # 127.0.0.1 in spellings that some take for it.
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.1./",
        "http://127.0.0.0x1/",
        "http://0/",
        "http://user@localhost/",
        "http://localhost@example.org/",
        "http://localhost\\@example.org/",
        "http://localhost#@example.org/",
        "http://localhost/#fragment",
        "http://localhost.example.org/",
        "http://localhost./",
        "http://{task_id}.localhost/",
        "ftp://localhost/",
        "file:///etc/passwd",
        "//localhost/",
        "http://",
        "http:///x",
        "http://localhost:0/",
        "http://localhost:080/",
        "http://localhost:65536/",
        "http://localhost:22/",
        "http://localhost:x/",
        "http://local host/",
        "http://localhost/é",
        "http://localhost/\n",
        "http://[::1/",
        "http://" + "a" * 300 + "/",
        "http://localhost/" + "a" * 2_048,
    ],
)
def test_anything_else_is_not(url: str):
    assert not AllowList(USUAL).allows_url(url)


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("hooks.example.org", "https://hooks.example.org/x", True),
        ("Hooks.Example.org", "https://HOOKS.example.ORG/x", True),
        ("hooks.example.org", "https://example.org/", False),
        ("*.example.org", "https://a.b.example.org/", True),
        ("*.example.org", "https://example.org/", False),
        ("*.example.org", "https://badexample.org/", False),
        ("10.0.0.0/8", "http://10.1.2.3:8080/", True),
        ("10.0.0.0/8", "http://11.1.2.3:8080/", False),
        ("10.1.2.3", "http://10.1.2.3/", True),
        ("fd00::/8", "http://[fd12::7]/", True),
        ("[fd00::1]:8443", "https://[fd00::1]:8443/", True),
        ("[fd00::1]:8443", "https://[fd00::1]/", False),
        ("hooks.example.org:22", "http://hooks.example.org:22/", True),
        ("hooks.example.org:8443", "http://hooks.example.org:8444/", False),
        ("hooks.example.org:443", "https://hooks.example.org/", True),
        ("knowledge_service", "http://knowledge_service:8082/", True),
    ],
)
def test_an_entry_is_a_name_a_suffix_an_address_or_a_network(entry: str, url: str, allowed: bool):
    assert AllowList((entry,)).allows_url(url) is allowed


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.", "a b", "10.0.0.1/33", "10.0.0.1/8", "10.0.0.256", "::1/129", "a:99999", "a:0",
     "a:x", "127.1", "0x7f.1", "a..b", "-a", "a.*", "http://a/", "[::1", "[a]:80"],
)  # fmt: skip
def test_what_is_no_entry_is_refused(entry: str):
    with pytest.raises(ValueError, match=r"expected|does not appear|has host bits"):
        parse_entry(entry)


@pytest.mark.parametrize(
    ("host", "address", "allowed"),
    [
        ("hooks.example.org", "8.8.8.8", True),
        ("hooks.example.org", "2606:4700::1", True),
        ("hooks.example.org", "127.0.0.1", False),
        ("hooks.example.org", "10.0.0.1", False),
        ("hooks.example.org", "169.254.169.254", False),
        ("hooks.example.org", "::ffff:10.0.0.1", False),
        ("hooks.example.org", "64:ff9b::a00:1", False),
        ("hooks.example.org", "2002:a00:1::1", False),
        ("hooks.example.org", "::", False),
        ("hooks.example.org", "0.0.0.0", False),  # noqa: S104 - refused, not bound to
        ("hooks.example.org", "224.0.0.1", False),
        ("hooks.example.org", "192.168.7.9", True),
        ("elsewhere.example.org", "8.8.8.8", False),
        ("localhost", "127.0.0.1", True),
        ("localhost", "10.0.0.1", False),
    ],
)
def test_a_name_leads_to_public_addresses_and_to_listed_ones(
    host: str, address: str, allowed: bool
):
    listed = AllowList(("hooks.example.org", "192.168.7.0/24", "localhost"))

    assert listed.allows_address(host, ip_address(address), 443) is allowed


@pytest.mark.parametrize("address", ["100.64.0.1", "198.18.0.1", "240.0.0.1", "fe80::1", "fc00::1"])
def test_addresses_of_special_use_are_not_public(address: str):
    assert not is_public(ip_address(address))
