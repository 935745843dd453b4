"""Training speed of warmstart against `transformers.Trainer`: same model, data, batch, AdamW and precision.

Each trainer runs in a process of its own with the same number of threads. The two take turns, a few steps
each, so that other work on the machine meets both alike; a round gives one pair of times, and the table shows
medians. The machine's peak is measured in each round too, as the speed of a 2048 x 2048 matrix product in the
same precision.

    python benchmarks/training_speed.py            # float32 and bfloat16, a few minutes
    python benchmarks/training_speed.py --quick    # under a minute
    python benchmarks/training_speed.py --compile  # warmstart with torch_compile on top
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

VOCAB, HIDDEN, LAYERS, MIDDLE, HEADS = 8192, 256, 6, 704, 4


class RandomBlocks:
    """Random token ids: speed does not depend on what they are."""

    fingerprint = "random"

    def __init__(self, count: int, length: int) -> None:
        self.ids = np.random.default_rng(0).integers(0, VOCAB, (count, length))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[index]


def build_model(block: int) -> Any:
    """A Llama with 6.9M parameters, tied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=HIDDEN,
            intermediate_size=MIDDLE,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=block,
            tie_word_embeddings=True,
        )
    )


class Turns:
    """Waits for a turn of some steps, and reports the seconds that they took."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.left, self.begin = pipe, 0, 0.0

    def before_step(self) -> bool:
        """False when there are no more turns."""
        if self.left == 0:
            self.left = self.pipe.recv()
            self.begin = time.perf_counter()
        return self.left > 0

    def after_step(self) -> None:
        """Count a step."""
        self.left -= 1
        if self.left == 0:
            self.pipe.send(time.perf_counter() - self.begin)


def run_warmstart(pipe: Connection, options: dict[str, Any]) -> None:
    """Our loop, with its logging, clock and checks, measured around its own steps."""
    from warmstart.training import TrainSettings, train
    from warmstart.training.run import Run

    turns, step = Turns(pipe), Run._step

    def timed(run: Run) -> None:
        if not turns.before_step():
            raise KeyboardInterrupt
        step(run)
        turns.after_step()

    Run._step, Run._save = timed, lambda run: None  # type: ignore[method-assign]
    settings = TrainSettings(
        objective="causal",
        block_size=options["block"],
        max_steps=100_000,
        per_device_train_batch_size=options["batch"],
        gradient_accumulation_steps=options["passes"],
        learning_rate=1e-4,
        bf16=options["bf16"],
        torch_compile=options["compile"],
    )
    with tempfile.TemporaryDirectory() as folder:
        train(
            build_model(options["block"]), None, RandomBlocks(4096, options["block"]), settings, Path(folder)
        )


def run_trainer(pipe: Connection, options: dict[str, Any]) -> None:
    """`transformers.Trainer` with its defaults; the same batch, AdamW, clipping and precision."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    turns, blocks = Turns(pipe), RandomBlocks(4096, options["block"])

    class Data(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(blocks)

        def __getitem__(self, index: int) -> dict[str, Any]:
            ids = torch.from_numpy(blocks[index])
            return {"input_ids": ids, "labels": ids}

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not turns.before_step():
                raise KeyboardInterrupt

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            turns.after_step()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=100_000,
            per_device_train_batch_size=options["batch"],
            gradient_accumulation_steps=options["passes"],
            learning_rate=1e-4,
            weight_decay=0.1,
            bf16=options["bf16"],
            save_strategy="no",
            logging_steps=10,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.accelerator.is_available(),
        )
        Trainer(build_model(options["block"]), arguments, train_dataset=Data(), callbacks=[Watch()]).train()


def run_peak(pipe: Connection, options: dict[str, Any]) -> None:
    """Floating-point operations per second of a large matrix product."""
    import torch

    size, device = 2048, "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(size, size, dtype=torch.bfloat16 if options["bf16"] else torch.float32, device=device)
    while repeats := pipe.recv():
        begin = time.perf_counter()
        for _ in range(repeats):
            b = a @ a
        float(b[0, 0])
        pipe.send(2 * size**3 * repeats / (time.perf_counter() - begin))


def guarded(work: Any, pipe: Connection, options: dict[str, Any]) -> None:
    """Run `work` without its output; a negative number of steps ends it."""
    import torch

    torch.set_num_threads(options["threads"])
    log = os.open(options["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        work(pipe, options)
    except (KeyboardInterrupt, EOFError):
        os._exit(0)
    except Exception as error:
        if type(error).__name__ != "Interrupted":
            raise
    os._exit(0)


def compare(options: dict[str, Any], *, rounds: int, steps: int) -> dict[str, Any]:
    """Take turns and return medians."""
    context = multiprocessing.get_context("spawn")
    workers, pipes = [], {}
    for name, work in {"warmstart": run_warmstart, "trainer": run_trainer, "peak": run_peak}.items():
        ours, theirs = context.Pipe()
        worker = context.Process(target=guarded, args=(work, theirs, options), daemon=True)
        worker.start()
        workers.append(worker)
        theirs.close()
        pipes[name] = ours

    def turn(name: str, amount: int) -> float:
        pipes[name].send(amount)
        return float(pipes[name].recv())

    tokens = options["batch"] * options["passes"] * options["block"] * steps
    for name in pipes:  # warm up
        turn(name, 2)
    seen: dict[str, list[float]] = {"warmstart": [], "trainer": [], "peak": []}
    for number in range(rounds):
        order = ("warmstart", "trainer") if number % 2 else ("trainer", "warmstart")
        for name in order:
            seen[name].append(tokens / turn(name, steps))
        seen["peak"].append(turn("peak", 8))
    for name in pipes:
        pipes[name].send(0 if name == "peak" else -1)
    for worker in workers:
        worker.join(30)
    ratios = sorted(a / b for a, b in zip(seen["warmstart"], seen["trainer"], strict=True))
    return {**{name: statistics.median(values) for name, values in seen.items()}, "ratios": ratios}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few short rounds")
    parser.add_argument("--compile", action="store_true", help="warmstart with torch_compile")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--passes", type=int, default=1, help="gradient accumulation steps")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    rounds, steps = (given.rounds or (5 if given.quick else 15)), 2 if given.quick else 4
    from warmstart.objectives.causal import Causal
    from warmstart.training.loop import flops_per_token

    flops = flops_per_token(build_model(given.block), Causal(None, None), given.block)  # type: ignore[arg-type]
    results = {}
    for precision in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            options = {
                "bf16": precision == "bfloat16",
                "batch": given.batch,
                "block": given.block,
                "passes": given.passes,
                "threads": given.threads,
                "compile": given.compile,
                "log": str(Path(folder) / "log"),
            }
            try:
                found = compare(options, rounds=rounds, steps=steps)
            except EOFError:
                sys.exit("a worker failed:\n" + Path(options["log"]).read_text()[-3000:])
        found["share of peak"] = {
            name: found[name] * flops / found["peak"] for name in ("warmstart", "trainer")
        }
        results[precision] = found
    if given.json:
        print(json.dumps({"options": vars(given), "flops per token": flops, **results}))
        return
    print(
        f"Llama, 6.9M parameters, {given.passes} x {given.batch} blocks of {given.block} tokens per step, "
        f"{given.threads} threads, median of {rounds} rounds of {steps} steps"
    )
    print(f"{'':10}{'warmstart':>20}{'Trainer':>20}{'ratio (quartiles)':>24}{'peak':>14}")
    for precision, found in results.items():
        low, middle, high = statistics.quantiles(found["ratios"], n=4)
        cells = [
            f"{found[name]:,.0f} tok/s {found['share of peak'][name]:4.0%}"
            for name in ("warmstart", "trainer")
        ]
        print(
            f"{precision:10}{cells[0]:>20}{cells[1]:>20}{f'{middle:.2f} ({low:.2f}-{high:.2f})':>24}"
            f"{found['peak'] / 1e9:>7,.0f} GFLOP/s"
        )


if __name__ == "__main__":
    main()
