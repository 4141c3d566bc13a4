"""Settings: where a value comes from, and what is said of a value that cannot be used."""

import re
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.knobs import ENV_PREFIX, KNOBS
from ledger.settings import BUILT_IN_TASK_TYPES, Durability, LogFormat, LogLevel, Settings
from ledger.settings_sources import (
    FILE_VARIABLE,
    SettingsError,
    find_file,
    load,
    to_env,
    without_secrets,
)

ROOT = Path(__file__).parents[2]
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
ANY_SETTINGS = st.builds(
    Settings,
    redis_url=st.none() | st.just("redis://:secret@db:6379/3"),
    data_dir=st.text(st.characters(exclude_characters="\0"), min_size=1),
    durability=st.sampled_from(Durability),
    port=st.integers(0, 65_535),
    task_types=st.lists(NAMES, unique=True).map(tuple),
    handlers=st.none() | NAMES,
    retry_jitter=st.floats(0, 1),
    log_level=st.sampled_from(LogLevel),
    log_format=st.sampled_from(LogFormat),
)


def problems(
    flags: dict[str, object] | None = None,
    env: dict[str, str] | None = None,
    file: Path | None = None,
) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        load(flags or {}, env or {}, file)
    return raised.value.problems


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledgerq.toml"


def test_nothing_given_means_the_defaults():
    loaded = load({}, {}, None)

    assert loaded.settings == Settings()
    assert {str(source) for source in loaded.sources.values()} == {"default"}


@pytest.mark.parametrize(
    ("flags", "env", "port", "source"),
    [
        ({"port": 1}, {"LEDGERQ_PORT": "2"}, 1, "flag --port"),
        ({"port": None}, {"LEDGERQ_PORT": "2"}, 2, "environment LEDGERQ_PORT"),
        ({}, {}, 3, "file {file}"),
    ],
)
def test_the_strongest_source_of_a_value_counts(
    file: Path, flags: dict[str, object], env: dict[str, str], port: int, source: str
):
    file.write_text("port = 3")

    loaded = load(flags, env, file)

    assert loaded.settings.port == port
    assert str(loaded.sources["port"]) == source.format(file=file)


def test_other_variables_of_the_environment_are_left_alone():
    assert load({}, {"PORT": "x", "HOME": "/root"}, None).settings == Settings()


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({"LEDGERQ_PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"LEDGERQ_PORT": "0"}, "http://127.0.0.1:8084"),
        ({"LEDGERQ_PORT": "9000", "LEDGERQ_URL": "http://api:1"}, "http://api:1"),
    ],
)
def test_clients_look_on_the_port_of_the_settings(env: dict[str, str], url: str):
    assert load({}, env, None).settings.url == url


@pytest.mark.parametrize(
    ("flags", "redis_url"),
    [
        ({"data_dir": "d"}, None),
        ({"data_dir": "d", "redis_url": "redis://flag"}, "redis://flag"),
        ({}, "redis://env"),
    ],
)
def test_a_directory_among_the_flags_means_its_own_server(
    flags: dict[str, object], redis_url: str | None
):
    env = {"LEDGERQ_REDIS_URL": "redis://env", "LEDGERQ_DATA_DIR": "e"}

    assert load(flags, env, None).settings.redis_url == redis_url


def test_variables_that_kubernetes_sets_are_told_from_mistakes():
    env = {"LEDGERQ_PORT": "tcp://10.0.0.1:8084", "LEDGERQ_SERVICE_HOST": "10.0.0.1"}

    assert "enableServiceLinks: false" in problems(env=env)[-1]


@pytest.mark.parametrize("text", ["ocr,speech", " ocr , speech,"])
def test_a_list_is_comma_separated_text(text: str):
    settings = load({}, {"LEDGERQ_TASK_TYPES": text}, None).settings

    assert settings.task_types == ("ocr", "speech")
    assert settings.known_task_types == (*BUILT_IN_TASK_TYPES, "ocr", "speech")


def test_a_list_in_a_file_is_an_array(file: Path):
    file.write_text('task_types = ["ocr", "speech"]')

    assert load({}, {}, file).settings.task_types == ("ocr", "speech")


def test_empty_text_takes_back_an_optional_value(file: Path):
    file.write_text('redis_url = "redis://elsewhere"')

    assert load({}, {"LEDGERQ_REDIS_URL": ""}, file).settings.redis_url is None


@given(ANY_SETTINGS)
def test_a_child_process_gets_the_very_same_settings(settings: Settings):
    assert load({}, to_env(settings), None).settings == settings


def test_a_process_that_runs_the_code_of_others_gets_the_same_settings_without_the_keys():
    keys = (f"whsec_{'a' * 32}", f"whsec_{'b' * 32}")
    env = to_env(Settings(port=9, callback_secrets=keys))

    without = without_secrets(env)

    assert not any(key in value for key in keys for value in without.values())
    assert load({}, without, None).settings == Settings(port=9)


def test_nothing_a_child_finds_changes_what_its_parent_decided(file: Path):
    file.write_text("\n".join(["port = 9", 'redis_url = "redis://x"', 'task_types = ["x"]']))

    assert load({}, to_env(Settings()), file).settings == Settings()


def test_an_unknown_variable_is_named_with_the_closest_one():
    assert problems(env={"LEDGERQ_LEASE": "9000"}) == (
        "environment variable LEDGERQ_LEASE: no such setting; the closest is LEDGERQ_LEASE_MS",
    )


def test_an_unknown_key_of_the_file_is_named_with_the_closest_one(file: Path):
    file.write_text("prot = 80")

    assert problems(file=file) == (
        f"settings file {file}: key prot: no such setting; the closest is port",
    )


def test_an_unknown_flag_is_named_with_the_closest_one():
    assert problems({"worker": 2}) == ("flag --worker: no such setting; the closest is --workers",)
    assert problems({"process": 2}) == (
        "flag --process: no such setting; the closest is --processes",
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("port", "65536", "a whole number from 0 to 65535"),
        ("port", "-1", "a whole number from 0 to 65535"),
        ("port", "eighty", "a whole number from 0 to 65535"),
        ("port", "", "a whole number from 0 to 65535"),
        ("partitions", "65", "a whole number from 1 to 64"),
        ("lease_ms", "1999", "a whole number from 2000 to 600000"),
        ("retry_jitter", "nan", "a number from 0 to 1"),
        ("durability", "ALWAYS", "one of always, everysec"),
        ("host", "", "text that is not empty"),
        (
            "handlers",
            "handlers.py:run",
            "a module's dotted name, such as shop.handlers, or nothing",
        ),
        ("url", "localhost:8084", "a URL such as http://127.0.0.1:8084"),
    ],
)
def test_a_bad_value_is_told_with_its_source_and_what_was_expected(
    name: str, text: str, expected: str
):
    variable = ENV_PREFIX + name.upper()

    assert problems(env={variable: text}) == (
        f"{name}: expected {expected}, got {text!r} (environment {variable})",
    )


@pytest.mark.parametrize("line", ['port = "8084"', "port = true", "port = 80.5", "[port]"])
def test_a_file_holds_numbers_as_numbers(file: Path, line: str):
    file.write_text(line)

    assert problems(file=file)[0].startswith("port: expected a whole number from 0 to 65535, got ")


@pytest.mark.parametrize("name", ["Ocr", "o:cr", "1st", "a" * 64])
def test_a_task_type_must_fit_into_a_key(name: str):
    assert "task_types: expected a list of task types" in problems({"task_types": [name]})[0]


def test_everything_wrong_is_told_at_once(file: Path):
    file.write_text("nonsense = 1")

    assert len(problems({"port": "x"}, {"LEDGERQ_WORKERS": "0"}, file)) == 3


def test_a_lease_must_outlast_a_lost_heartbeat():
    assert problems(env={"LEDGERQ_LEASE_MS": "2000", "LEDGERQ_HEARTBEAT_MS": "1001"}) == (
        "lease_ms: expected at least twice heartbeat_ms, got 2000 (environment LEDGERQ_LEASE_MS)"
        " and 1001 (environment LEDGERQ_HEARTBEAT_MS)",
    )


@pytest.mark.parametrize(
    ("workers", "concurrency", "shares"),
    [(1, 50, [50]), (4, 50, [13, 13, 12, 12]), (3, 3, [1, 1, 1]), (4, 2, [1, 1, 1, 1])],
)
def test_the_processes_of_a_pool_share_its_concurrency(
    workers: int, concurrency: int, shares: list[int]
):
    settings = Settings(workers=workers, concurrency=concurrency)

    assert [settings.concurrency_of(number) for number in range(1, workers + 1)] == shares


@pytest.mark.parametrize(("lease_ms", "beat_ms"), [(15_000, 1_000), (4_000, 1_000), (2_000, 500)])
def test_a_short_lease_is_renewed_more_often(lease_ms: int, beat_ms: int):
    assert Settings(lease_ms=lease_ms).beat_ms == beat_ms


def test_the_longest_retry_delay_is_not_below_the_first():
    assert problems({"retry_cap_ms": 10}) == (
        "retry_cap_ms: expected at least retry_base_ms, got 10 (flag --retry-cap-ms)"
        " and 1000 (default)",
    )


def test_a_file_that_is_not_there_is_an_error(file: Path):
    assert problems(file=file) == (f"settings file {file}: No such file or directory",)


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_an_error(file: Path, content: bytes):
    file.write_bytes(content)

    assert problems(file=file)[0].startswith(f"settings file {file}: ")


def test_the_file_is_found_beside_the_caller_unless_another_is_named(tmp_path: Path, file: Path):
    assert find_file({}, tmp_path) is None
    file.touch()
    assert find_file({}, tmp_path) == file
    assert find_file({"LEDGERQ_SETTINGS_FILE": "/etc/q.toml"}, tmp_path) == Path("/etc/q.toml")


def test_naming_the_file_is_not_an_unknown_setting(file: Path):
    file.touch()

    load({}, {"LEDGERQ_SETTINGS_FILE": str(file)}, file)


@pytest.mark.parametrize(
    "url", ["redis://me:hunter2@db/0", "redis://db/0?password=hunter2", "redis//me:hunter2@db"]
)
def test_a_password_is_never_shown(url: str):
    try:
        shown = " ".join(text for _, text, _ in load({"redis_url": url}, {}, None).rows())
    except SettingsError as error:
        shown = str(error)

    assert "db" in shown
    assert "hunter2" not in shown


def test_every_knob_says_what_it_is_and_has_a_default_within_its_bounds():
    assert list(KNOBS) == list(Settings.__struct_fields__)
    assert all(knob.description and knob.expected for knob in KNOBS.values())
    load({}, to_env(Settings()), None)


def test_the_list_in_the_docs_is_up_to_date():
    listed = runpy.run_path(str(ROOT / "docs" / "list_settings.py"))["listed"]()

    assert (ROOT / "docs" / "settings.md").read_text() == listed, "run python docs/list_settings.py"


def test_variables_that_the_docs_name_are_settings():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")]
    named = {name for page in pages for name in re.findall(r"LEDGERQ_[A-Z_]+", page.read_text())}

    assert named <= {knob.env for knob in KNOBS.values()} | {FILE_VARIABLE, "LEDGERQ_"}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("CALLBACK_HOSTS", "10.0.0.1/8", "callback_hosts: '10.0.0.1/8': 10.0.0.1/8 has host bits"),
        ("CALLBACK_HOSTS", "a..b", "callback_hosts: expected a host's name, got 'a..b'"),
        ("CALLBACK_URLS", "work=http://example.org/", "callback_urls: expected URLs whose hosts"),
        ("CALLBACK_URLS", "http://localhost/", "callback_urls: expected a list of task types"),
        ("CALLBACK_RETRY_CAP_MS", "10", "callback_retry_cap_ms: expected at least"),
    ],
)
def test_what_callbacks_cannot_work_with_is_told(name: str, text: str, expected: str):
    [problem] = problems(env={f"LEDGERQ_{name}": text})

    assert problem.startswith(expected)
