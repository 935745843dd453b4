"""The contract checks hold for every method, run as often as declared, and can come out negative."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts_broken import BROKEN
from warmstart.foundation.contracts import Suite, from_distribution, run_checks, suites
from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Entry
from warmstart.training.schedule import schedules

COMMON = 5
DECLARED = {  # kind: {tag that a method must have, "" for every method: number of checks}
    "dataset": {"": COMMON + 1},
    "initialiser": {"": COMMON + 7, "mix": 2, "convex": 1, "fallback": 1},
    "objective": {"": COMMON + 7, "random": 1},
    "optimizer": {"": COMMON + 6, "lean": 1},
    "reader": {"": COMMON + 6},
    "schedule": {"": COMMON + 4, "decays": 1},
}
METHODS = [(kind, name) for kind, suite in suites().items() for name in suite.registry.names()]


def entry_of(kind: str, name: str) -> Entry[Any]:
    return suites()[kind].registry.get(name)


def test_every_kind_declares_how_many_checks_it_has() -> None:
    assert suites().keys() == DECLARED.keys()


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_method_keeps_its_contract(kind: str, name: str) -> None:
    entry = entry_of(kind, name)
    outcomes = run_checks(kind, entry)
    counts = Counter(outcome.status for outcome in outcomes)
    expected = sum(n for tag, n in DECLARED[kind].items() if not tag or tag in entry.tags)
    print(f"{kind:12} {name:22} expected {expected:3} ran {counts['passed']:3} skipped {counts['skipped']:3}")
    assert not [f"{o.name}: {o.reason}" for o in outcomes if o.status == "failed"]
    assert counts["passed"] + counts["skipped"] == expected
    assert counts["skipped"] == len(entry.skips)
    assert len({o.name for o in outcomes}) == len(outcomes)


def test_no_check_of_a_kind_goes_unused() -> None:
    """A tag that no method carries would leave its checks to nobody."""
    for kind, suite in suites().items():
        used = {
            check.name for name in suite.registry.names() for check in suite.applicable(entry_of(kind, name))
        }
        assert used == {check.name for check in suite.checks}


def test_every_check_has_a_method_that_fails_it() -> None:
    common = {check.name for check in suites()["schedule"].checks[:COMMON]}
    wanted = {
        (kind, c.name) for kind, suite in suites().items() for c in suite.checks if c.name not in common
    }
    wanted |= {("schedule", name) for name in common}
    assert BROKEN.keys() == wanted


@pytest.mark.parametrize(
    ("key", "entry"), [(key, entry) for key, entries in BROKEN.items() for entry in entries],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_a_broken_method_fails(key: tuple[str, str], entry: Entry[Any]) -> None:
    kind, name = key
    outcomes = {outcome.name: outcome for outcome in run_checks(kind, entry)}
    assert outcomes[name].status == "failed"
    assert outcomes[name].reason


def test_a_skip_needs_a_written_reason() -> None:
    linear = schedules.get("linear")
    skipped = replace(linear, skips={"warms-up": "it starts at its peak on purpose"})
    outcome = next(o for o in run_checks("schedule", skipped) if o.name == "warms-up")
    assert (outcome.status, outcome.reason) == ("skipped", "it starts at its peak on purpose")
    for reason in ("", "  ", "no"):
        silent = replace(linear, skips={"warms-up": reason})
        outcome = next(o for o in run_checks("schedule", silent) if o.name == "warms-up")
        assert outcome.status == "failed"
    unknown = replace(linear, skips={"warm-up": "a name that no check has"})
    assert [(o.name, o.status) for o in run_checks("schedule", unknown)][-1] == ("warm-up", "failed")


def test_two_checks_cannot_share_a_name() -> None:
    suite = suites()["schedule"]
    with pytest.raises(ValueError, match="two checks 'warms-up'"):
        suite.check(name="warms-up")(lambda entry: None)
    with pytest.raises(UserError, match="no checks for the kind 'schedul'"):
        run_checks("schedul", schedules.get("linear"))
    assert isinstance(suite, Suite)


GOOD = '''
from warmstart.training.schedule import after, rise, schedules

@schedules.register("own-linear", title="A linear schedule of one's own", tags=("decays",))
def own_linear(progress, *, warmup, decay, floor):
    """Rises linearly, then falls linearly to the floor."""
    return rise(progress, warmup) * (1 - (1 - floor) * after(progress, warmup))
'''
BAD = '''
from warmstart.training.schedule import schedules

@schedules.register("own-bad", title="A schedule that jumps")
def own_bad(progress, *, warmup, decay, floor):
    """Jumps from nothing to twice the peak."""
    return 0.0 if progress < 0.5 else 2.0
'''


def install(folder: Path, name: str, source: str, *, group: str = "warmstart.schedule") -> None:
    """Put a package on disk as an installer would, with its entry point."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nown-{name.split('-')[1]} = {module}\n")


def check(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from warmstart.cli import main; main(sys.argv[2:])"
    return subprocess.run(
        [sys.executable, "-c", code, str(folder), "check", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_package_inherits_the_checks(tmp_path: Path) -> None:
    install(tmp_path, "their-linear", GOOD)
    install(tmp_path, "their-bad", BAD)
    done = check(tmp_path, "their-linear")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "own-linear" in done.stdout
    assert f"{COMMON + 5}" in done.stdout
    assert "All checks passed." in done.stdout
    done = check(tmp_path, "their-bad")
    assert done.returncode == 1
    assert "failed: schedule own-bad: stays-between-zero-and-one" in done.stdout
    assert "failed: schedule own-bad: is-continuous" in done.stdout


def test_a_package_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    install(tmp_path, "their-torn", "import a_module_that_is_not_there\n")
    install(tmp_path, "their-other", GOOD)  # registers another name than its entry point says
    install(tmp_path, "their-wrong", GOOD, group="warmstart.schedul")
    done = check(tmp_path, "their-torn", "--json")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stdout
    done = check(tmp_path, "their-other")
    assert done.returncode == 1
    assert "own-other" in done.stdout
    done = check(tmp_path, "their-wrong")
    assert done.returncode == 2
    assert "did you mean 'schedule'?" in done.stderr


def test_a_package_without_methods_is_told() -> None:
    with pytest.raises(UserError, match="'click' adds no methods"):
        from_distribution("click")
    with pytest.raises(UserError, match="'clickk' is not installed; did you mean 'click'"):
        from_distribution("clickk")
