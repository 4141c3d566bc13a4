"""What is shipped: the wheel, the image's roles, and the directions that imports may take."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

import ledger
from ledger.knobs import ENV_PREFIX
from ledger.settings_sources import load

ROOT = Path(__file__).parent.parent
PACKAGES = ("ledger", "projections", "consumers", "api")
PLUGIN = "ledgerq_pytest.py"
FILES = ("pyproject.toml", "README.md", "LICENSE", PLUGIN)
"""Beside the packages, what the wheel is made from."""
ROLES = ("api", "worker", "scheduler", "projector", "notifier", "archiver")


class Service(msgspec.Struct):
    """The parts of a compose service that are looked at here."""

    image: str
    command: list[str]
    healthcheck: dict[str, Any]
    environment: dict[str, str] = {}
    volumes: list[str] = []
    depends_on: dict[str, dict[str, str]] = {}


class Compose(msgspec.Struct):
    """A compose file."""

    services: dict[str, Service]


@pytest.fixture(scope="module")
def compose() -> Compose:
    return msgspec.convert(yaml.safe_load((ROOT / "compose.yaml").read_text()), Compose)


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what is built and checked, to be spoilt at will."""
    copy = tmp_path / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    return copy


def run(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], cwd=cwd, capture_output=True, text=True)


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    return run(
        "-c", "from importlinter.cli import *; exit(lint_imports(no_cache=True))", cwd=directory
    )


def build_wheel(source: Path) -> zipfile.ZipFile:
    build = "import sys; from setuptools.build_meta import build_wheel as b; print(b(sys.argv[1]))"
    built = run("-c", build, str(source.parent), cwd=source)
    assert built.returncode == 0, built.stderr
    return zipfile.ZipFile(source.parent / built.stdout.splitlines()[-1])


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(source: Path):
    expected = {
        path.relative_to(source).as_posix()
        for name in PACKAGES
        for path in (source / name).rglob("*")
        if path.is_file()
    } | {PLUGIN}

    with build_wheel(source) as wheel:
        shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert "ledger/append.lua" in shipped
    assert shipped == expected


def test_the_wheel_names_its_version_licence_and_command(source: Path):
    with build_wheel(source) as wheel:
        parts = {
            Path(name).name: wheel.read(name).decode()
            for name in wheel.namelist()
            if ".dist-info/" in name
        }

    assert f"\nVersion: {ledger.__version__}\n" in parts["METADATA"]
    assert "\nLicense-Expression: Apache-2.0\n" in parts["METADATA"]
    assert "ledgerq = api.cli:main" in parts["entry_points.txt"]
    assert "[pytest11]\nledgerq = ledgerq_pytest" in parts["entry_points.txt"]
    assert parts["LICENSE"] == (ROOT / "LICENSE").read_text()


def test_the_version_is_written_in_one_place(pyproject: dict[str, Any]):
    assert pyproject["project"]["dynamic"] == ["version"]
    literal = re.compile(rf"""["']{re.escape(ledger.__version__)}["']""")
    holders = [
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        if literal.search(path.read_text())
    ]

    assert holders == ["ledger/__init__.py"]


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] == ledger.__version__


@pytest.mark.parametrize("role", ROLES)
def test_a_role_in_compose_is_a_command(compose: Compose, role: str):
    command = compose.services[role].command

    shown = run("-c", "from api.cli import main; main()", *command, "--help")

    assert shown.returncode == 0, shown.stderr
    assert f"ledgerq {role}" in shown.stdout


def test_roles_share_one_image_and_wait_for_a_healthy_valkey(compose: Compose):
    roles = {name: service for name, service in compose.services.items() if name != "valkey"}

    assert set(roles) == {*ROLES}
    assert {service.image for service in roles.values()} == {"ledgerq"}
    assert all(service.healthcheck["test"] for service in compose.services.values())
    for service in roles.values():
        assert service.depends_on == {"valkey": {"condition": "service_healthy"}}


def test_the_projector_in_compose_writes_what_the_api_reads(compose: Compose):
    folders = {
        name: compose.services[name].environment["LEDGERQ_READ_MODEL_DIR"]
        for name in ("api", "projector")
    }

    assert folders["api"] == folders["projector"]
    assert folders["api"] in (ROOT / "Dockerfile").read_text()


def test_who_opens_the_object_store_has_its_volume_in_compose(compose: Compose):
    openers = {"api", "worker", "scheduler", "projector", "archiver"}

    for name in openers:
        service = compose.services[name]
        folder = service.environment["LEDGERQ_OBJECT_STORE_URL"].removeprefix("file://")
        assert f"objects:{folder}" in service.volumes, name


def test_settings_in_compose_are_settings(compose: Compose):
    for service in compose.services.values():
        given = {k: v for k, v in service.environment.items() if k.startswith(ENV_PREFIX)}
        sources = load({}, given, None).sources.values()
        assert {source.name for source in sources if source.name} == set(given)


def test_the_image_is_made_from_all_that_the_wheel_is():
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)

    assert {*let_in} == {*PACKAGES, *FILES}


def test_settings_in_the_image_are_settings():
    given = dict(re.findall(r"(LEDGERQ_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))

    assert "LEDGERQ_DATA_DIR" in given
    load({}, given, None)


def test_valkey_in_compose_is_as_durable_as_the_settings_say(compose: Compose):
    command = compose.services["valkey"].command
    server = dict(zip(command[1::2], command[2::2], strict=True))
    declared = load({}, compose.services["api"].environment, None).settings.durability

    assert server["--appendonly"] == "yes"
    assert server["--appendfsync"] == declared
    assert server["--maxmemory-policy"] == "noeviction"


def test_imports_keep_their_contracts():
    checked = lint_imports(ROOT)

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("module", ["redis.asyncio", "asyncio", "time", "random", "uuid"])
def test_a_new_file_of_the_ledger_is_pure_unless_it_is_listed(source: Path, module: str):
    (source / "ledger" / "fresh.py").write_text(f"import {module}\n")

    checked = lint_imports(source)

    assert checked.returncode == 1
    assert f"ledger.fresh is not allowed to import {module.split('.')[0]}" in checked.stdout


def test_a_pure_file_does_not_reach_io_through_another_file(source: Path):
    (source / "ledger" / "fresh.py").write_text("import ledger.redis_store\n")

    checked = lint_imports(source)

    assert checked.returncode == 1
    assert "ledger.fresh is not allowed to import ledger.redis_store" in checked.stdout


def test_imports_run_one_way(source: Path):
    (source / "ledger" / "fresh.py").write_text("import projections\n")

    checked = lint_imports(source)

    assert checked.returncode == 1
    assert "ledger is not allowed to import projections" in checked.stdout


def test_a_worker_never_loads_the_api_package():
    loaded = run("-c", "import consumers, sys; print('api' in sys.modules)")

    assert loaded.stdout == "False\n", loaded.stderr
