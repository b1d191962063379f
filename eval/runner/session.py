"""A command's work on one subject: data read, every trial run or found, tables written."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contenders import Contender, contender
from .measures import check_packages
from .store import Trial, cases_of, read_trial, trials_of, whole
from .subjects import Arguments, Subject, floors_of
from .tables import markdown, write_results
from .trial import Bench, run_trial

ArgumentsOf = Callable[[Contender, int], Arguments]
CommandOf = Callable[[Contender, int], list[str]]


@dataclass(frozen=True)
class Session:
    """What is run on a subject.

    Attributes:
        subject: the benchmark or row.
        contenders: those of the command line, in its order.
        seeds: of the trials.
        output: folder of results.
        arguments_of: the arguments of fine-tuning, or of a report generator, of a contender and a seed.
        command_of: the command that runs one trial in a process of its own.
        jobs: trials at a time.
        pretrained: whether timm is asked for its weights.
    """

    subject: Subject
    contenders: Sequence[Contender]
    seeds: Sequence[int]
    output: Path
    arguments_of: ArgumentsOf
    command_of: CommandOf
    jobs: int = 1
    pretrained: bool = False

    def run(self, with_floors: bool = True) -> None:
        """Runs every trial that is not finished. One seed of all contenders comes before the next.

        Raises:
            ValueError: for data, arguments or models that do not serve; and if a trial failed in its process, with the file that says why.
        """
        check_packages(self.subject.metrics)
        bench = self._open()
        contenders = list(self.contenders)
        fitting = floors_of(self.subject.task, bench.data)
        for one in contenders:
            if one.kind == "floor" and one.source not in fitting:
                told = f"its floor is {', '.join(fitting)}" if fitting else "there is no floor of such labels"
                raise ValueError(f"--model {one.source}: is no floor of {self.subject.key}; {told}")
        if with_floors:
            named = {one.source for one in contenders}
            contenders += [contender(name) for name in fitting if name not in named]
        todo = [
            (one, seed)
            for seed in self.seeds
            for one in contenders
            if one.kind != "floor" or seed == self.seeds[0]  # it has no random numbers
        ]
        if self.jobs == 1:
            for one, seed in todo:
                trial, was_there = run_trial(bench, one, self.arguments_of(one, seed))
                print(self._told(one, trial, was_there), flush=True)
        else:
            self._run_beside(bench, todo)

    def _open(self) -> Bench:
        arguments = self.arguments_of(self.contenders[0], self.seeds[0])
        data = self.subject.read(arguments)
        print(data.summary(), flush=True)
        differences = self.subject.check(data)
        for sentence in differences:
            print(f"not as in the paper: {sentence}", flush=True)
        return Bench(self.subject, data, self.output, differences, self.pretrained)

    def _run_beside(self, bench: Bench, todo: Sequence[tuple[Contender, int]]) -> None:
        """Each trial in a process of one thread, some at a time."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}

        def run_one(one: Contender, seed: int) -> str:
            folder = bench.folder(one, seed)
            there = read_trial(folder) is not None
            folder.parent.mkdir(parents=True, exist_ok=True)
            log = folder.with_name(f"{seed}.log")
            with log.open("w", encoding="utf-8") as stream:  # a trial that is there is compared with its settings, too
                code = subprocess.run(
                    self.command_of(one, seed), stdout=stream, stderr=stream, env=environment
                ).returncode
            trial = read_trial(folder)
            if code or trial is None:
                last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise ValueError(
                    f"{self.subject.key}, {one.label}, seed {seed}: {''.join(last)} (exit code {code}, see {log})"
                )
            return self._told(one, trial, there)

        pool = ThreadPoolExecutor(self.jobs)
        try:
            for done in as_completed([pool.submit(run_one, *each) for each in todo]):
                print(done.result(), flush=True)
        finally:
            pool.shutdown(cancel_futures=True)

    def _told(self, one: Contender, trial: Trial, was_there: bool) -> str:
        found = [(head.metric, trial.record["test"].get(head.metric)) for head in self.subject.headlines]
        values = ", ".join(f"{name} {value:.4g}" for name, value in found if value is not None)
        ending = "is there" if was_there else f"{trial.record['total_seconds']:.0f} s"
        return f"{self.subject.key}, {one.label}, seed {trial.seed}: {values} ({ending})"

    def trials(self) -> list[Trial]:
        """All finished trials of the subject that were measured on the same cases as the first: of the contenders of this command first,
        and then of those that other commands left."""
        order = {one.slug: place for place, one in enumerate(self.contenders)}
        found = sorted(
            map(whole, trials_of(self.output, self.subject.key)),
            key=lambda trial: (
                trial.record["kind"] == "floor",
                order.get(trial.folder.parent.name, len(order)),
            ),
        )
        same = [
            trial for trial in found if cases_of(trial.record["provenance"]) == cases_of(found[0].record["provenance"])
        ]
        for trial in found:
            if trial not in same:
                print(f"note: {trial.folder} was measured on other data or another split and is left out", flush=True)
        return same

    def report(self) -> dict[str, Any] | None:
        """Writes and prints the tables of what is there; None if nothing is."""
        trials = self.trials()
        if not trials:
            return None
        entry = write_results(self.output, self.subject, trials)
        print(f"\n{markdown(self.subject.key, entry, details=False)}\n", flush=True)
        return entry


def script_command(script: Path, argv: Sequence[str], options: Sequence[str]) -> list[str]:
    """This command once more, with options that win over those before them."""
    return [sys.executable, str(script), *argv, *options]
