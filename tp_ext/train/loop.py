"""A training run from its recipe: everything is checked, then it trains, measures, saves and goes on."""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

from tp_ext.checkpoint.files import DTYPES
from tp_ext.checkpoint.formats import KIND, write_trained
from tp_ext.data.loader import Loader
from tp_ext.data.prefetch import Prefetch
from tp_ext.errors import CheckpointError, DatasetError, RecipeError
from tp_ext.models import families
from tp_ext.output import whole_folder, write_json
from tp_ext.train import feed, resume
from tp_ext.train import processes as process_group
from tp_ext.train.engine import Engine
from tp_ext.train.evaluate import evaluate
from tp_ext.train.inputs import Inputs, open_inputs, steps_of_epochs
from tp_ext.train.processes import Processes
from tp_ext.train.recipe import Recipe
from tp_ext.train.report import METRICS, Report, flops_per_token, matmul_peak, memory_used, say
from tp_ext.train.schedule import Span, rate_at, warmup_steps


def run(recipe: Recipe) -> None:
    """Train. Raises a UserError before anything is trained or overwritten when something does not fit."""
    inputs = open_inputs(recipe)
    processes = process_group.join()
    try:
        Run(recipe, inputs, processes).train()
    finally:
        process_group.leave()


class Run:
    """A run in progress."""

    def __init__(self, recipe: Recipe, inputs: Inputs, processes: Processes) -> None:
        """Find where to begin, build the engine, and go to that point."""
        train = recipe.train
        recipe.accumulation_steps(processes.world_size)
        if train.dtype == "fp16" and processes.device.type == "cpu":
            raise RecipeError("recipe.train.dtype: fp16 needs a GPU; on a CPU use fp32 (or bf16, slowly)")
        self._recipe, self._inputs, self._processes = recipe, inputs, processes
        self._output = Path(train.output_model_path)
        self._identity = resume.Identity(
            dataset_sha256=None if inputs.sources else inputs.stores[0].sha256, sources=inputs.sources,
            packing=recipe.data.packing, document_mask=recipe.data.document_mask, tokenizer_sha256=inputs.tokenizer.sha256,
            seq_length=recipe.data.seq_length, seed=train.seed, shuffle=recipe.data.shuffle,
            model=inputs.config.to_json(), dtype=train.dtype, zero=recipe.parallel.zero,
            offload=recipe.parallel.offload, processes_num=processes.world_size,
            pretrained=inputs.source.fingerprint() if inputs.source else None,
        )  # fmt: skip
        checkpoint = resume.find(self._output, train.resume)
        self._state = resume.State(step=0, position=0, tokens=0, identity=self._identity, recipe=recipe.to_json())
        self._state = self._read_state(checkpoint)
        if checkpoint:
            self._refuse_later(checkpoint)
            self._tell_changes(self._state)
        self._inputs = inputs = dataclasses.replace(inputs, total_steps=self._total_steps())
        processes.wait()
        torch.manual_seed(train.seed + processes.rank)
        self._engine = Engine(recipe, inputs.config, None if checkpoint else inputs.source, processes)
        if checkpoint:
            resume.load(checkpoint, self._engine, processes)
        self._loader = Loader(
            inputs.stream, train.global_batch_size, train.micro_batch_size, processes.rank, processes.world_size
        )
        self._span = Span(train.learning_rate, train.min_learning_rate, inputs.total_steps,
                          warmup_steps(train.warmup, inputs.total_steps))  # fmt: skip
        self._report = Report(self._output, processes.is_first, inputs.total_steps)
        self._stop = False

    def _read_state(self, checkpoint: Path | None) -> resume.State:
        """The state of a checkpoint, or of the beginning, once data and checkpoint are found to be undamaged.

        The first process alone reads the files to compare hashes; all raise together.
        """
        state, problem = self._state, None
        try:
            if self._processes.is_first:
                for store in (*self._inputs.stores, *(windows.store for windows in self._inputs.held_out.values())):
                    store.verify()
            if checkpoint:
                state = resume.read_state(checkpoint, self._identity, hashes=self._processes.is_first)
        except (CheckpointError, DatasetError) as error:
            problem = str(error)
        problems = [told for told in self._processes.gathered(problem) if told]
        if problems:
            raise CheckpointError(problems[0])
        return state

    def _refuse_later(self, checkpoint: Path) -> None:
        """Raise RecipeError when the run has checkpoints after the one it is to go on from: they would be mixed up."""
        name = resume.folder_of(self._output, self._state.step).name
        later = [path for path in resume.checkpoints(self._output) if path.name > name]
        if later:
            raise RecipeError(
                f"recipe.train.resume: {checkpoint} is at step {self._state.step}, but {self._output} has later checkpoints "
                f"({later[-1].name}); name another output_model_path, or remove them"
            )

    def _total_steps(self) -> int:
        """Steps of the run in all; with epochs, what is left of them at the batch size of now."""
        train, state = self._recipe.train, self._state
        if train.epochs is None:
            return self._inputs.total_steps
        left = steps_of_epochs(self._recipe, self._inputs.stream, state.position)
        return state.step + max(0 if state.step else 1, left)

    def _tell_changes(self, state: resume.State) -> None:
        """Say from where the run goes on, and which settings differ from those it began with."""
        say(f"resuming at step {state.step}, instance {state.position:,}, {state.tokens:,} tokens")
        for section, values in self._recipe.to_json().items():
            before = state.recipe.get(section, {})
            for name, value in values.items():
                if name in before and before[name] != value:
                    say(f"  recipe.{section}.{name}: was {before[name]}, is {value}")

    def train(self) -> None:
        """Go through all steps; on SIGTERM save and return."""
        self._begin()
        total, state = self._inputs.total_steps, self._state
        if state.step >= total:
            say(f"the run is complete: {state.step} of {total} steps")
        elif state.step == 0:
            self._evaluate(0)
        with Prefetch(feed.steps(self._loader, state.position, self._processes.device)) as steps:
            state = self._go_through(steps, state)
        if state.step < total:
            say(f"stopped by SIGTERM at step {state.step} of {total}; the same command goes on from there")
        else:
            self._write_model(state)
        self._finish()

    def _go_through(self, steps: Iterator[feed.Step], state: resume.State) -> resume.State:
        """Train from `state` to the end of the run or to SIGTERM; measure and save on the way, and at the end."""
        train, log = self._recipe.train, self._recipe.log
        total = self._inputs.total_steps
        window = Window()
        saved = state.step
        stopped = 0.0
        while state.step < total and not stopped:
            rate = rate_at(state.step + 1, train.scheduler, self._span)
            step = next(steps)
            loss, norm = self._step(step, rate)
            state = dataclasses.replace(
                state, step=state.step + 1, position=state.position + train.global_batch_size,
                tokens=state.tokens + step.targets_num, recipe=self._recipe.to_json(),
            )  # fmt: skip
            stopped, lost = self._processes.total(self._stop, self._is_lost(loss, norm))
            if lost:
                raise RecipeError(
                    f"step {state.step}: the loss or the gradients are no finite numbers any more (here {loss:.4g}, norm "
                    f"{norm:.4g}); nothing was saved since the step before. Lower train.learning_rate, lengthen "
                    "train.warmup, set train.max_grad_norm, and run again"
                )
            window.add(loss, step.targets_num)
            if state.step % log.report_steps == 0 or state.step == total:
                self._tell(state, window, rate, norm)
                window = Window()
            if state.step % self._recipe.evaluate.steps == 0 or state.step == total:
                self._evaluate(state.step)
            if state.step % train.save_checkpoint_steps == 0 or state.step == total:
                self._save(state)
                saved = state.step
            window.skip_time()
        if state.step > saved:
            self._save(state)
        return state

    def _begin(self) -> None:
        """Write the recipe, rewind the metrics, listen to SIGTERM, begin wandb."""
        if self._processes.is_first:
            self._output.mkdir(parents=True, exist_ok=True)
            write_json(self._output / "recipe.json", self._recipe.to_json())
        self._report.rewind(self._state.step if self._state.step else -1)
        signal.signal(signal.SIGTERM, self._on_signal)
        log = self._recipe.log
        self._report.start_wandb(log.wandb_project, log.wandb_name, self._output, self._recipe.to_json())
        self._parameters_num = _parameters_num(self._engine)
        self._peak = self._measure_peak()
        train = self._recipe.train
        data = self._inputs.described(self._inputs.total_steps * train.global_batch_size)
        say(
            f"model: {self._parameters_num:,} parameters, {self._inputs.config.rows:,} rows; data: {data}; "
            f"run: {self._inputs.total_steps:,} steps of {train.global_batch_size} "
            f"instances on {self._processes.world_size} process{'es' * (self._processes.world_size > 1)} "
            f"({self._processes.device.type}, {train.dtype}, ZeRO {self._recipe.parallel.zero})"
        )

    def _measure_peak(self) -> float:
        """Floating-point operations a second of all processes."""
        return self._processes.total(matmul_peak(self._processes.device, DTYPES[self._recipe.train.dtype]))[0]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _step(self, step: feed.Step, rate: float) -> tuple[float, float]:
        """One optimizer step: this process's share of the mean loss, and the gradients' norm."""
        loss_sum = torch.zeros((), dtype=torch.float32, device=self._processes.device)
        norm = float("nan")
        for tensors, weight in step.micro_batches:
            loss = self._engine.loss(*feed.to_device(tensors, self._processes.device)) * weight
            self._engine.backward(loss)
            norm = self._engine.step(rate)
            loss_sum += loss.detach()
        return float(loss_sum) / len(step.micro_batches), norm

    def _is_lost(self, loss: float, norm: float) -> bool:
        """Whether training has come to an end in infinity; under fp16 gradients may overflow, their step is skipped."""
        return not math.isfinite(loss) or (self._recipe.train.dtype != "fp16" and not math.isfinite(norm))

    def _tell(self, state: resume.State, window: Window, rate: float, norm: float) -> None:
        """Report the steps of a window."""
        loss = self._processes.total(window.loss)[0] / self._processes.world_size / window.steps
        seconds = window.seconds()
        tokens_per_second = window.targets / seconds
        flops = flops_per_token(self._parameters_num, self._inputs.config, self._inputs.stream.seq_length)
        if self._processes.any(tokens_per_second * flops > self._peak):  # it was measured on a busy machine
            self._peak = max(self._peak, self._measure_peak())
        memory = max(self._processes.gathered(memory_used(self._processes.device)))
        values = {
            "loss": loss, "learning_rate": rate, "grad_norm": norm, "tokens": state.tokens,
            "tokens_per_second": tokens_per_second, "mfu": tokens_per_second * flops / self._peak, "memory_gib": memory,
            "skipped_steps": self._engine.skipped_steps,
        }  # fmt: skip
        self._report.line(state.step, values, window.steps / seconds)

    def _evaluate(self, step: int) -> None:
        """Measure on every held-out dataset."""
        size = self._recipe.evaluate.micro_batch_size or self._recipe.train.micro_batch_size
        for name, instances in self._inputs.held_out.items():
            score = evaluate(self._engine.module, instances, size, self._processes)
            say(f"step {step}  {name}: loss {score.loss:.4f}, {score.bits_per_byte:.4f} bits per byte")
            self._report.write(step, {f"{name}_loss": score.loss, f"{name}_bits_per_byte": score.bits_per_byte})

    def _save(self, state: resume.State) -> None:
        resume.save(self._output, state, self._engine, self._processes, self._recipe.train.keep_checkpoints)

    def _write_model(self, state: resume.State) -> None:
        """Write the trained weights with their tokenizer as a model folder of ours."""
        dtype = DTYPES[self._recipe.train.dtype]
        if not self._processes.is_first:
            for _ in self._engine.weights():
                pass
        else:
            with whole_folder(self._output / "model", KIND, CheckpointError) as folder:
                datasets = {name: source["sha256"] for name, source in self._identity.sources.items()}
                trained = {"step": state.step, "tokens": state.tokens,
                           "dataset_sha256": datasets or self._identity.dataset_sha256}  # fmt: skip
                write_trained(folder, self._inputs.config, families, self._engine.weights(), dtype, self._inputs.tokenizer,
                              {"trained": trained, "tokenizer_sha256": self._identity.tokenizer_sha256},
                              self._inputs.source)  # fmt: skip
        self._processes.wait()

    def _finish(self) -> None:
        """End wandb and name everything that was written."""
        self._report.close()
        written = [self._output / "recipe.json", self._output / METRICS, *resume.checkpoints(self._output)]
        if (self._output / "model").is_dir():
            written.append(self._output / "model")
        if self._report.wandb_folder:
            written.append(self._report.wandb_folder)
        say("wrote " + "\n      ".join(str(path) for path in written))


class Window:
    """Steps between two reports; time that was not spent on steps can be left out."""

    def __init__(self) -> None:
        self.loss, self.targets, self.steps = 0.0, 0, 0
        self._seconds, self._since = 0.0, time.perf_counter()

    def add(self, loss: float, targets: int) -> None:
        """Count one step."""
        now = time.perf_counter()
        self.loss, self.targets, self.steps = self.loss + loss, self.targets + targets, self.steps + 1
        self._seconds, self._since = self._seconds + now - self._since, now

    def skip_time(self) -> None:
        """Leave out the time since the last step: it went into reporting, measuring or saving."""
        self._since = time.perf_counter()

    def seconds(self) -> float:
        """Seconds spent on the steps."""
        return self._seconds


def _parameters_num(engine: Engine) -> int:
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in engine.module.parameters())
