"""How a page is read by those that follow it, and what counts as being shown."""

from pathlib import Path

import pytest

from tests.docs.page import Commands, File, Glance, Visit, is_shown, steps_of

PAGE = """\
# A page

Write `one.py`, and the file `two.toml`, with a key:

```toml
key = 1
```

```sh
run it
```

```text
It runs.
```

```sh
and more
```

In the first terminal:

```text
It was run.
```

Open http://127.0.0.1:8000 and choose `a.txt` and `b.txt`:

```text
a and b
```
"""


def test_a_page_is_read_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)

    assert list(steps_of(tmp_path / "page.md")) == [
        File("two.toml", "key = 1\n"),
        Commands("run it\n", "It runs.\n"),
        Commands("and more\n", ""),
        Glance("It was run.\n"),
        Visit("http://127.0.0.1:8000", ["a.txt", "b.txt"], "a and b\n"),
    ]


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("done", "all is done"),
        ("one … four", "one two\nthree four"),
        ("one two", "one\n     two"),
        ("at 16:22:04.365", "at 17:00:00.001"),
        ("16:22:04 started", "17:00:00 started"),
        (
            "task 01a218a9-fd74-7664-aa8c-96cb017bba73",
            "task 60e914d7-ffbc-82d5-91cb-4a30cc7be37d",
        ),
        ("by vm-16187-efd8", "by my-other-host-9-00ab"),
        ("http://127.0.0.1:8084", "http://127.0.0.1:40123"),
        ("7   TaskStarted", "12  TaskStarted"),
        ("words 113 (all)", "words 113 (all)"),
    ],
)
def test_what_differs_from_run_to_run_is_shown_all_the_same(shown: str, said: str) -> None:
    assert is_shown(shown, said)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("completed", "failed"),
        ("one … four", "four three two one"),
        ("words 113", "words 112"),
        ("attempt=1", "attempt=2"),
        ("at 16:22:04.365", "at noon"),
        ("a.b", "a-b"),
    ],
)
def test_anything_else_is_not(shown: str, said: str) -> None:
    assert not is_shown(shown, said)
