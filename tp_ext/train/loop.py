"""A training run from its recipe: everything is checked, then it trains, measures, saves and goes on."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import FrameType

import torch

from tp_ext.checkpoint.files import DTYPES
from tp_ext.data.loader import Loader
from tp_ext.data.prefetch import Prefetch
from tp_ext.errors import RecipeError
from tp_ext.output import write_json
from tp_ext.train import feed, resume, seen
from tp_ext.train import processes as process_group
from tp_ext.train.engine import Engine
from tp_ext.train.evaluate import evaluate
from tp_ext.train.failure import told_last
from tp_ext.train.fit import check_memory
from tp_ext.train.guard import Guard
from tp_ext.train.hold import hold
from tp_ext.train.inputs import Inputs, open_inputs
from tp_ext.train.launcher import Launcher
from tp_ext.train.lora import counts_of
from tp_ext.train.machines import check_shared
from tp_ext.train.parallel.mesh import Mesh, data_degree
from tp_ext.train.processes import Processes
from tp_ext.train.recipe import Recipe
from tp_ext.train.records import METRICS, RESULTS, RUN, STEPS
from tp_ext.train.report import Report, flops_per_token, matmul_peak, memory_used, say
from tp_ext.train.result import write_result
from tp_ext.train.schedule import Span, rate_at
from tp_ext.train.seen import suspects, write_seen
from tp_ext.train.start import find_start, resumed_as, tell_changes
from tp_ext.train.step import Outcome, make_step
from tp_ext.train.stop import STOPPED, reason_to_stop
from tp_ext.train.watch import StopWatch
from tp_ext.train.window import TRAINING, Window


def run(read: Callable[[], Recipe]) -> None:
    """Train by the recipe that is `read`; on SIGTERM save, and end the process with STOPPED.

    Raises a UserError before anything is trained or overwritten when something does not fit.
    """
    prepared = _prepared(read)
    processes = process_group.join()
    try:
        with told_last(processes):
            if isinstance(prepared, Exception):
                raise prepared
            is_stopped = Run(*prepared, processes).train()
    finally:
        process_group.leave()
    if is_stopped:
        sys.exit(STOPPED)


def _prepared(read: Callable[[], Recipe]) -> tuple[Recipe, Inputs] | Exception:
    """A recipe and what it names; or, of several processes, what is wrong with them here, which all have to hear of."""
    try:
        recipe = read()
        inputs = open_inputs(recipe)
        check_memory(recipe, inputs.config)
    except Exception as error:
        if process_group.world_size() == 1:
            raise
        return error
    return recipe, inputs


class Run:
    """A run in progress."""

    def __init__(self, recipe: Recipe, inputs: Inputs, processes: Processes) -> None:
        """Find where to begin, build the engine, and go to that point."""
        train = recipe.train
        recipe.accumulation_steps(data_degree(recipe.parallel, processes.world_size))
        if train.dtype == "fp16" and processes.device.type == "cpu":
            raise RecipeError("recipe.train.dtype: fp16 needs a GPU; on a CPU use fp32 (or bf16, slowly)")
        self._recipe, self._processes = recipe, processes
        self._output = Path(train.output_model_path)
        start = find_start(recipe, inputs, processes)
        check_shared(self._output, processes)
        hold(self._output, processes)
        self._resumed = resumed_as(recipe, start) if start.checkpoint else []
        if start.checkpoint:
            tell_changes(recipe, start)
        self._state, self._total_steps, self._inputs = start.state, start.total_steps, inputs
        processes.wait()
        mesh = Mesh(recipe.parallel, processes)
        # the parts of a layer drop alike, and what goes on at another shape does not drop what the first steps did
        seed = train.seed + mesh.stage * mesh.data + mesh.data_rank
        torch.manual_seed(seed + (start.state.step << 32 if start.written else 0))
        # what LoRA trains is all that its checkpoints hold
        source = inputs.source if recipe.lora or not start.checkpoint else None
        self._engine = Engine(recipe, inputs.config, source, processes, mesh)
        if start.checkpoint and start.written:
            resume.convert(start.checkpoint, start.written, self._engine)
        elif start.checkpoint:
            resume.load(start.checkpoint, self._engine, processes)
        self._loader = Loader(
            inputs.stream, train.global_batch_size, train.micro_batch_size, mesh.data_rank, mesh.data
        )
        self._span = Span.of(train.learning_rate, train.min_learning_rate, self._total_steps, train.warmup)
        self._guard = Guard(recipe.guard, self._state.watched)
        self._report = Report(self._output, processes.is_first, self._total_steps)
        self._stop, self._saved = False, self._state.step
        self._removal: Thread | None = None
        self._launcher, self._exchanges = Launcher(), process_group.watched(processes)

    def train(self) -> bool:
        """Go through all steps; on SIGTERM, or when the launcher is gone, save and return. Whether it was stopped."""
        self._begin()
        total, state = self._total_steps, self._state
        if state.step >= total:
            say(f"the run is complete: {state.step} of {total} steps")
        elif state.step == 0:
            self._evaluate(0)
        with Prefetch(feed.steps(self._loader, state.position, self._processes.device)) as steps:
            state = self._go_through(steps, state)
        is_stopped = state.step < total
        if is_stopped:
            by = "SIGTERM" if self._processes.any(self._stop) else "the end of the command that started it"
            say(f"stopped by {by} at step {state.step} of {total}; the same command goes on from there")
        else:
            self._write_model(state)
        self._finish()
        self._processes.wait()
        return is_stopped

    def _go_through(self, steps: Iterator[feed.Step], state: resume.State) -> resume.State:
        """Train from `state` to the end of the run or to SIGTERM; measure and save on the way, and at the end."""
        window, stopped = Window(), False
        moved = self._engine.moved()
        while state.step < self._total_steps and not stopped:
            watch = StopWatch(self._processes.device, self._exchanges)
            rate = rate_at(state.step + 1, self._recipe.train.scheduler, self._span)
            step = next(steps)
            watch.lap("data")
            if moved:
                moved.begin()
            stop = self._stop or self._launcher.is_gone()
            outcome = make_step(self._engine, step, rate, self._guard, self._processes, watch, stop)
            if moved:
                moved.end(state.step + 1, was_made=rate > 0 and not outcome.verdict.skips)
            stopped, before = outcome.is_stopped, state
            state = self._after(state, step, outcome)
            if outcome.verdict.reason:
                self._tell_verdict(before, state, outcome)
            window.add(None if outcome.verdict.skips else outcome.loss, step.targets_num, watch.seconds())
            if not outcome.verdict.stops:
                window = self._look_after(state, window, rate, outcome, watch, stopped)
            elif outcome.verdict.is_spike:  # older checkpoints stay, as the weights may have been spoilt before
                self._save(state, watch, keep=0)
            self._record(before, step, outcome, rate, watch)
            if outcome.verdict.stops:
                raise RecipeError(reason_to_stop(self._recipe, state, outcome))
        return state

    def _after(self, state: resume.State, step: feed.Step, outcome: Outcome) -> resume.State:
        """How far the run is after a step; from one that was skipped nothing was learned."""
        return dataclasses.replace(
            state, step=state.step + 1, position=state.position + self._recipe.train.global_batch_size,
            tokens=state.tokens + (0 if outcome.verdict.skips else step.targets_num), recipe=self._recipe.to_json(),
            watched=self._guard.watched,
        )  # fmt: skip

    def _look_after(
        self, state: resume.State, window: Window, rate: float, outcome: Outcome, watch: StopWatch, stopped: bool
    ) -> Window:
        """Report, measure and save where it is time to; the window that goes on."""
        is_last = state.step == self._total_steps
        watch.lap("report")
        if state.step % self._recipe.log.report_steps == 0 or is_last:
            self._tell(state, window, rate, outcome.grad_norm)
            window = Window()
            watch.lap("report")
        if state.step % self._recipe.evaluate.steps == 0 or is_last:
            self._evaluate(state.step)
            watch.lap("evaluate")
        every = self._recipe.train.save_checkpoint_steps
        is_due = state.step // every > self._saved // every and not outcome.verdict.skips  # waits for a step that is well
        if is_due or is_last or stopped:
            self._save(state, watch, self._recipe.train.keep_checkpoints)
        return window

    def _save(self, state: resume.State, watch: StopWatch, keep: int) -> None:
        """Write a checkpoint."""
        self._saved = state.step
        if self._removal:
            self._removal.join()  # it takes room until then
        resume.save(self._output, state, self._engine, self._processes)
        if self._processes.is_first:
            self._removal = resume.remove_older(self._output, keep)
        watch.lap("save")

    def _tell_verdict(self, before: resume.State, after: resume.State, outcome: Outcome) -> None:
        """Say what is wrong with a step, and write the text of its instances."""
        done = "skipped" if outcome.verdict.skips else "made all the same"
        say(f"step {after.step}: {outcome.verdict.reason}; {done}")
        if outcome.verdict.is_expected:
            return
        positions = suspects(self._loader, before.position, outcome.own_losses, self._processes, self._engine.mesh)
        if self._processes.is_first:
            heading = f"step {after.step}: {outcome.verdict.reason}; {done}\nloss {outcome.loss:.6g}, gradients' norm " \
                      f"{outcome.grad_norm:.6g}"  # fmt: skip
            write_seen(seen.odd_step(self._output, after.step), heading,
                       seen.seen(self._inputs.stream, self._inputs.tokenizer, positions))  # fmt: skip

    def _record(self, before: resume.State, step: feed.Step, outcome: Outcome, rate: float, watch: StopWatch) -> None:
        """Write down what happened in a step."""
        self._report.step(before.step + 1, {
            "position": before.position, "instances": self._recipe.train.global_batch_size, "targets": step.targets_num,
            "loss": outcome.loss, "grad_norm": outcome.grad_norm, "learning_rate": rate,
            "skipped": outcome.verdict.skips, "reason": outcome.verdict.reason, "seconds": watch.seconds(),
            **({"resumed": self._resumed} if self._resumed else {}),
        })  # fmt: skip
        self._resumed = []

    def _begin(self) -> None:
        """Write the recipe, rewind the metrics, listen to SIGTERM, begin wandb."""
        identity = dataclasses.asdict(self._state.identity)
        if self._processes.is_first:
            self._output.mkdir(parents=True, exist_ok=True)
            write_json(self._output / "recipe.json", self._recipe.to_json())
            write_json(self._output / RUN, identity)
        self._report.rewind(self._state.step if self._state.step else -1)
        signal.signal(signal.SIGTERM, self._on_signal)
        log = self._recipe.log
        self._report.start_wandb(log.wandb_project, log.wandb_name, self._output,
                                 {**self._recipe.to_json(), "identity": identity})  # fmt: skip
        self._counts = counts_of(self._inputs.config, self._recipe.lora)
        self._peak = self._measure_peak()
        train = self._recipe.train
        data = self._inputs.described(self._total_steps * train.global_batch_size)
        trained = f" ({self._counts.trained:,} of them trained)" if self._recipe.lora else ""
        say(
            f"model: {self._counts.all:,} parameters{trained}, {self._inputs.config.rows:,} rows; data: {data}; "
            f"run: {self._total_steps:,} steps of {train.global_batch_size} "
            f"instances on {self._processes.world_size} process{'es' * (self._processes.world_size > 1)} "
            f"({self._processes.device.type}, {train.dtype}, {self._recipe.parallel.described()})"
        )

    def _measure_peak(self) -> float:
        """Floating-point operations a second of all processes."""
        return self._processes.total(matmul_peak(self._processes.device, DTYPES[self._recipe.train.dtype]))[0]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _tell(self, state: resume.State, window: Window, rate: float, norm: float) -> None:
        """Report the steps of a window."""
        tokens_per_second = window.targets / window.seconds
        length = self._inputs.stream.seq_length
        flops = flops_per_token(self._counts.all, self._inputs.config, length, self._counts.multiplied)
        if self._processes.any(tokens_per_second * flops > self._peak):  # it was measured on a busy machine
            self._peak = max(self._peak, self._measure_peak())
        own = (memory_used(self._processes.device), window.spent("forward") + window.spent("backward"))
        memory, computed = zip(*self._processes.gathered(own), strict=True)
        values = {
            "loss": window.loss, "learning_rate": rate, "grad_norm": norm, "tokens": state.tokens,
            "tokens_per_second": tokens_per_second, "mfu": tokens_per_second * flops / self._peak,
            "memory_gib": max(memory), "imbalance": max(computed) * len(computed) / sum(computed),
            "skipped_steps": state.watched.skipped,
            **{f"{part}_seconds": window.spent(part) / window.steps for part in TRAINING},
        }  # fmt: skip
        self._report.line(state.step, values, window.steps / window.seconds)

    def _evaluate(self, step: int) -> None:
        """Measure on every held-out dataset."""
        size = self._recipe.evaluate.micro_batch_size or self._recipe.train.micro_batch_size
        for name, instances in self._inputs.held_out.items():
            score = evaluate(self._engine, instances, size, self._processes)
            say(f"step {step}  {name}: loss {score.loss:.4f}, {score.bits_per_byte:.4f} bits per byte")
            self._report.write(step, {f"{name}_loss": score.loss, f"{name}_bits_per_byte": score.bits_per_byte})

    def _write_model(self, state: resume.State) -> None:
        """Write what was trained, as a model folder of ours or, with LoRA, as adapters."""
        write_result(self._output, self._recipe, self._inputs, self._engine, state, self._processes)

    def _finish(self) -> None:
        """End wandb and name everything that was written."""
        if self._removal:
            self._removal.join()
        self._report.close()
        written = [self._output / name for name in ("recipe.json", RUN, METRICS, STEPS)] + resume.checkpoints(self._output)
        written += [self._output / name for name in RESULTS if (self._output / name).is_dir()]
        if self._report.wandb_folder:
            written.append(self._report.wandb_folder)
        say("wrote " + "\n      ".join(str(path) for path in written))
