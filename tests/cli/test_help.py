"""What a person finds out about the commands."""

import subprocess
import sys

import pytest

from ledger import __version__
from tests.cli.running import ROOT, Call, run

COMMANDS = (
    "up",
    "api",
    "worker",
    "scheduler",
    "projector",
    "notifier",
    "archiver",
    "submit",
    "status",
    "list",
    "stats",
    "tail",
    "cancel",
    "retry",
    "dead-letters",
    "explain",
    "workers",
    "pause",
    "resume",
    "limit",
    "limits",
    "history",
    "prove",
    "check-proof",
    "verify",
    "witness",
    "rebuild",
    "subscriptions",
    "retention",
    "doctor",
    "settings",
)
OF_COMMANDS = (
    "dead-letters retry",
    "subscriptions seek",
    "subscriptions remove",
    "retention forget",
)


@pytest.mark.parametrize("command", (*COMMANDS, *OF_COMMANDS))
def test_each_command_has_help_with_an_example(
    ledgerq: Call, monkeypatch: pytest.MonkeyPatch, command: str
):
    monkeypatch.setenv("COLUMNS", "80")

    ran = ledgerq(*command.split(), "--help")

    lines = ran.out.splitlines()
    assert ran.code == 0
    assert lines[0].startswith(f"Usage: ledgerq {command}")
    assert any(line.startswith("Example") for line in lines)
    assert any(line.startswith(f"  ledgerq {command}") for line in lines)
    assert max(map(len, lines)) <= 80


def test_all_commands_are_listed_without_loading_any(tmp_path: object):
    code = (
        "import sys; from api.cli import main\n"
        "sys.argv = ['ledgerq', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "loaded = [name for name in sys.modules if name.startswith('api.cli.')]\n"
        "print(loaded, 'asyncio' in sys.modules, 'redis' in sys.modules)"
    )

    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    *listed, loaded = shown.stdout.splitlines()
    assert loaded == "['api.cli.app'] False False"
    for command in COMMANDS:
        assert any(line.startswith(f"│ {command} ") for line in listed), command


def test_one_that_is_interrupted_while_it_is_loaded_ends_as_others_do():
    code = (
        "import signal, sys; from api.cli import main\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'api.cli.app': signal.raise_signal(signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "sys.exit(main())"
    )

    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert (ended.returncode, ended.stderr) == (130, "")


def test_the_version_is_told(ledgerq: Call):
    assert ledgerq("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("uup",), 'Did you mean "up"?'),
        (("status",), "TASK_ID"),
        (("up", "--prt", "1"), "Did you mean --port?"),
        (("up", "--port", "many"), "Invalid value for --port"),
    ],
)
def test_a_misspelt_command_is_exit_code_2(ledgerq: Call, words: tuple[str, ...], said: str):
    ran = ledgerq(*words)

    assert ran.code == 2
    assert said in " ".join(ran.err.replace("│", " ").split())


def test_a_flag_out_of_bounds_names_its_bounds(tmp_path_factory: pytest.TempPathFactory):
    ran = run("up", "--processes", "0", cwd=tmp_path_factory.mktemp("bounds"))

    assert ran.returncode == 1
    assert ran.stderr == (
        "ledgerq: workers: expected a whole number from 1 to 256, got 0"
        " (flag --processes or --workers)\n"
    )
