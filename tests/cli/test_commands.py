"""What the commands print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_runner import call

from warmstart.cli.output import as_json, only_results

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from synthetic import comparison


def test_systems_json_is_the_contract() -> None:
    rows = json.loads(call("systems", "--json").out)
    assert [row["n"] for row in rows] == list(range(1, 185))
    for row in rows:
        assert {"n", "name", "room", "state", "verdict", "scale", "date", "result"} <= row.keys()
        assert row["state"] in ("not built", "runs", "measured")


def test_systems_are_searched_and_filtered() -> None:
    assert [row["n"] for row in json.loads(call("systems", "wechsel", "--json").out)] == [23]
    rooms = {row["room"] for row in json.loads(call("systems", "--room", "shape", "--json").out)}
    assert rooms == {"shape"}
    text = call("systems", "--room", "shape").out
    assert "bert2BERT" in text
    assert "not built" in text


def test_doctor_reports_rows_with_advice() -> None:
    found = json.loads(call("doctor", "--fast", "--json").out)
    names = {row["name"] for row in found["checks"]}
    assert {
        "warmstart",
        "python",
        "torch",
        "threads",
        "memory",
        "cache folder",
        "data folder",
        "hub",
    } <= names
    assert found["warnings"] == sum(row["status"] == "warn" for row in found["checks"])
    for row in found["checks"]:
        assert (row["status"] == "warn") == bool(row["advice"])


def test_doctor_sees_a_wrong_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_DATA", str(tmp_path / "nowhere"))
    rows = {row["name"]: row for row in json.loads(call("doctor", "--fast", "--json").out)["checks"]}
    assert rows["data folder"]["status"] == "warn"
    assert "warn" in call("doctor", "--fast").out


def test_the_measured_speed_is_a_speed() -> None:
    import torch

    from warmstart.cli.machine import matmul_gflops

    small = matmul_gflops(torch.float32, n=256, seconds=0.05)
    assert 0.1 < small < 1e5


def test_schema_is_a_json_schema() -> None:
    schema = json.loads(call("schema", "--json").out)
    assert schema == json.loads(call("schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert json.loads(call("schema", "train").out)["properties"]["learning_rate"]["type"] == "number"


def test_report_renders_a_result_again(tmp_path: Path) -> None:
    result = comparison()
    (tmp_path / "result.json").write_text(json.dumps(result.model_dump(mode="json")))
    found = json.loads(call("report", str(tmp_path), "--plots", str(tmp_path / "plots"), "--json").out)
    assert found["sentence"] == result.sentence
    assert result.arms[0].description in Path(found["report"]).read_text()
    assert all(Path(plot).is_file() for plot in found["plots"])
    (tmp_path / "result.json").write_text('{"name": "x"}')
    wrong = call("report", str(tmp_path))
    assert wrong.code == 2
    assert "not a comparison's result: title" in wrong.err


def test_a_comparison_is_summed_up() -> None:
    from rich.console import Console

    from warmstart.cli.comparison import render, summary

    result = comparison()
    found = json.loads(as_json(summary(result, Path("runs/x"))))
    assert [arm["name"] for arm in found["arms"]] == [arm.name for arm in result.arms]
    assert found["arms"][0]["ratio"] == 1
    first = []
    for curve in result.arms[0].curves:  # where the baseline first has its final loss: what ratios refer to
        tokens, losses = [p.tokens for p in curve.points], [p.bpb for p in curve.points]
        at = next(i for i, loss in enumerate(losses) if loss <= losses[-1])
        first.append(np.interp(-losses[-1], [-losses[at - 1], -losses[at]], [tokens[at - 1], tokens[at]]))
    assert found["arms"][0]["tokens_to_target"] == pytest.approx(np.mean(first)) and min(first) < 819_200
    assert found["arms"][3]["ratio"] == result.arms[3].savings[0].ratio.mean
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    render(console, found)
    text = console.export_text()
    assert result.sentence.split(" with ")[0] in " ".join(text.split())
    assert "does not hold: Copied body with random rows" in text


def test_a_recipe_is_checked_without_running(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "name: own\nsteps:\n  tok: {type: tokenizer, corpus: python-stdlib/docs, vocab_size: 500}\n"
    )
    found = json.loads(call("run", str(file), "--dry-run", "--json").out)
    assert [(step["step"], step["type"]) for step in found["steps"]] == [("tok", "tokenizer")]
    assert "tokenizer" in call("run", str(file), "--dry-run", "--set", "tok.vocab_size=600").out
    wrong = call("run", str(file), "--dry-run", "--set", "tok.vocab_sise=600")
    assert wrong.code == 2
    assert "did you mean 'vocab_size'?" in wrong.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own.yaml"]


def test_a_tokenizer_is_trained_placed_and_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"the quick brown fox number {i} jumps over the lazy dog" for i in range(400)))
    out = tmp_path / "tok"
    words = ["vocab", "train", str(text), "--vocab-size", "300", "-o", str(out)]
    found = json.loads(call(*words, "--json").out)
    assert found["output"] == str(out)
    assert found["measured"]["round_trip_failures"] == 0
    assert (out / "tokenizer.json").is_file()
    assert call(*words).code == 2, "an existing folder must not be replaced unasked"
    assert call(*words, "--replace").code == 0
    info = json.loads(
        call("vocab", "info", str(out), "--corpus", str(text), "--against", str(out), "--json").out
    )
    assert info["tokenizer"]["tokens"] <= 300
    assert info[f"against {out}"]["new"] == 0
    assert info[f"on {text}"]["bytes_per_token"] > 1


def test_data_describes_a_corpus(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(f"line number {i}" for i in range(100)))
    found = json.loads(call("data", str(file), "--samples", "2", "--json").out)
    assert found["documents"] == 100
    assert len(found["samples"]) == 2
    assert "100" in call("data", str(file)).out
    names = [row["name"] for row in json.loads(call("data", "--list", "--json").out)]
    assert "python-stdlib/docs" in names
    assert call("data").code == 2


def test_json_holds_even_when_libraries_print(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import os, sys\n"
        "from warmstart.cli.output import only_results\n"
        "with only_results(True) as write:\n"
        "    print('noise')\n    os.write(1, b'more noise')\n    write('{}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"
    assert "noise" in done.stderr
    assert "more noise" in done.stderr


def test_json_is_plain() -> None:
    import numpy as np

    value = {
        "a": float("nan"),
        "b": np.float32(1.5),
        "c": np.arange(2),
        "d": Path("x"),
        "e": (True, None),
        3: "k",
    }
    assert json.loads(as_json(value)) == {
        "a": None,
        "b": 1.5,
        "c": [0, 1],
        "d": "x",
        "e": [True, None],
        "3": "k",
    }
    with pytest.raises(TypeError, match="object"):
        as_json(object())
    with only_results(False) as write:
        assert callable(write)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("table.initialisers=[focsu]", "did you mean 'focus'"),
        ("table.initialisers=[]", "at least one world and one initialiser"),
        ("table.worlds={}", "at least one world and one initialiser"),
        ("table.seeds=[1000]", "seeds must be different numbers"),
        ("captions.name=nothing-of-this-name", "no source is called"),
    ],
)
def test_a_table_that_is_refused_leaves_no_folder(change: str, said: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = call("vocab", "table", "--scale", "smoke", "--runs", str(runs), "--set", change)
    assert done.code == 2 and said in done.err, done.err
    assert not list(tmp_path.iterdir())
