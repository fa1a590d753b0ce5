"""The demo's stages in order: real conversations in, a fine-tuned, served and judged chatbot out.

Each stage runs public commands as a user would; their command lines are printed. What a stage found is in its figures,
which `report` shows.
"""

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vicuna.bot.demo.identity_and_failover import LONG_QUESTION, check_identity_and_failover
from vicuna.bot.server import FLAGS, Server
from vicuna.bot.stages import Figures, Stage, Workspace, files_under, remove
from vicuna.errors import VerificationError, VicunaError
from vicuna.eval.judging.rule_judge import running_rule_judge
from vicuna.io import log
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import read_json, read_jsonl, write_json
from vicuna.io.log import human_bytes
from vicuna.io.terminal import style
from vicuna.material import material
from vicuna.serve import processes
from vicuna.weights.small_model import find_small_model

BASE, TUNED = "smollm2", "vicuna"
TEMPLATE = "chatml"
MAX_LENGTH = 512
# Three minutes' training instead of three epochs, so a higher learning rate than the recipe for 7B and 13B, and the
# short dialogues several times: those that teach the name, and everyday ones that keep it out of every other answer.
# At 7e-5 the name is not learned in so few steps; at 1.5e-4 it is, and with it that a week has 52 weeks.
TRAINING = ["--max-steps", "60", "--learning-rate", "1e-4", "--warmup-ratio", "0.1", "--save-steps", "0"]
REPEATS = {"data/identity.jsonl": 3, "data/everyday.jsonl": 5}
HELD_OUT_RATIO = 0.1
NUM_QUESTIONS = 16
MAX_TOKENS = 120
SAMPLING = ["--temperature", "0.7", "--seed", "6"]  # greedy, a model as small as this repeats itself


class StageFailed(VicunaError):
    """A command of the chain failed."""

    def __init__(self, verb: str, status: int) -> None:
        super().__init__(f"vicuna {verb} failed (its own message is above); run the demo again to go on from here")
        self.exit_code = status if status in (1, 2, 3, 130) else 1


@dataclass
class Chain:
    """The demo's stages over one folder.

    Args:
        judge: the name of a judge at the OpenAI API, or None for the local rule-based stand-in.
    """

    workspace: Workspace
    judge: str | None
    server: Server | None = field(default=None, init=False)

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.workspace.folder

    num_stages = 9

    def stages(self) -> Iterator[Stage]:
        """The stages in order. Each is made when the ones before it are done, so it can name their outputs."""
        here = self.folder
        yield Stage("model", "find the small model", self.model, (), (), is_cheap=True)
        base = Path(self.workspace.figures("model")["path"])
        pages = (material("data/sharegpt_sample.json"), MAX_LENGTH, HELD_OUT_RATIO)
        yield Stage("clean", "clean the shared conversations", self.clean, pages, ("data",))
        records = (here / "data" / "records.jsonl", here / "data" / "held_out.jsonl")
        training = (base, *records, *map(material, REPEATS), list(REPEATS.values()), TRAINING, TEMPLATE)
        yield Stage("train", "fine-tune the small model", self.train, training, ("train",))
        tuned = here / "train" / "model"
        yield Stage("delta", "make the delta", self.delta, (base, tuned), ("delta",))
        yield Stage("apply", "apply the delta to the base", self.apply, (base, here / "delta"), ("restored",))
        yield Stage("verify", "prove the result bit-equal", self.verify, (tuned, here / "restored", here / "delta"), ())
        served = (base, here / "restored")
        asked = (*served, LONG_QUESTION)
        yield Stage("chat", "serve both, chat, kill a worker", self.check_served_models, asked, ("chat.json",))
        questions = (material("eval/questions.jsonl"), NUM_QUESTIONS, MAX_TOKENS, SAMPLING)
        yield Stage("answer", "answer questions with both", self.answer, (*served, *questions), ("eval/answers.jsonl",))
        judged = (here / "eval" / "answers.jsonl", self.judge)
        results = ("eval/judgments.jsonl", "eval/report.html", "eval/report.json")
        who = self.judge or "a local stand-in"
        yield Stage("judge", f"judge the answers, by {who}", self.judge_answers, judged, results)

    def model(self) -> Figures:
        """Find SmolLM2-135M-Instruct, or convert it once into the cache."""
        path = find_small_model()
        size = sum(file.stat().st_size for file in files_under(path))
        return {"path": str(path), "size_bytes": size, "shown": f"SmolLM2-135M-Instruct, {human_bytes(size)}"}

    def clean(self) -> Figures:
        """ShareGPT pages to training records, some of them held out: only these, as the rest is trained on whole."""
        tokenizer = ["--tokenizer", self.workspace.figures("model")["path"], "--template", TEMPLATE]
        limits = ["--max-tokens", MAX_LENGTH, "--held-out-ratio", HELD_OUT_RATIO]
        sample = material("data/sharegpt_sample.json")
        self._vicuna("data", sample, "--output-dir", self.folder / "data", *tokenizer, *limits)
        counts = read_json(self.folder / "data" / "manifest.json")["counts"]
        sums = " + ".join(f"{counts[name]} {name}" for name in ("kept", "dropped", "merged"))
        shown = (
            f"{counts['records_in']} in = {sums}; {counts['records_out']} to train on, {counts['held_out']} held out"
        )
        return {"counts": counts, "dropped": counts["rules"], "shown": shown}

    def train(self) -> Figures:
        """Fine-tune all weights; loss on the assistant's words only."""
        output = self.folder / "train"
        short = [material(name) for name, repeats in REPEATS.items() for _ in range(repeats)]
        data = ["--data", self.folder / "data/records.jsonl", *short]
        data += ["--eval-data", self.folder / "data/held_out.jsonl"]
        base = self.workspace.figures("model")["path"]
        self._vicuna("train", "--model", base, *data, "--template", TEMPLATE, *TRAINING, "--max-length", MAX_LENGTH,
                     "--output-dir", output)  # fmt: skip
        entries = list(read_jsonl(output / "train_log.jsonl"))
        held_out = [entry["eval_loss"] for entry in entries if "eval_loss" in entry]
        losses = [entry["loss"] for entry in entries if "loss" in entry]
        if held_out[-1] >= held_out[0]:
            raise VicunaError(f"the held-out loss did not fall: {held_out[0]:.4f} before, {held_out[-1]:.4f} after")
        return {
            "held_out_before": held_out[0],
            "held_out_after": held_out[-1],
            "losses": losses,
            "shown": f"held-out loss {held_out[0]:.3f} before, {held_out[-1]:.3f} after {len(losses)} steps",
        }

    def delta(self) -> Figures:
        """The difference to the base, exact."""
        base, tuned = self.workspace.figures("model")["path"], self.folder / "train/model"
        self._fresh("delta")
        self._vicuna("make-delta", "--base", base, "--target", tuned, "--delta", self.folder / "delta")
        size = sum(file.stat().st_size for file in files_under(self.folder / "delta"))
        raw = sum(file.stat().st_size for file in tuned.glob("*.safetensors"))
        share = f"{human_bytes(size)}, {100 * size / raw:.0f}% of the model"
        return {"size_bytes": size, "model_bytes": raw, "shown": share}

    def apply(self) -> Figures:
        """Base and delta back to the model."""
        base = self.workspace.figures("model")["path"]
        self._fresh("restored")
        self._vicuna(
            "apply-delta", "--base", base, "--target", self.folder / "restored", "--delta", self.folder / "delta"
        )
        size = sum(file.stat().st_size for file in files_under(self.folder / "restored"))
        return {"size_bytes": size, "shown": f"{human_bytes(size)} restored, every tensor's hash checked"}

    def verify(self) -> Figures:
        """The restored weights against the trained ones: by the delta's hashes, and byte by byte."""
        tuned, restored = self.folder / "train/model", self.folder / "restored"
        self._vicuna("weights", "verify", restored, "--delta", self.folder / "delta")
        names = [path.name for path in sorted(tuned.glob("*.safetensors"))]
        hashes = {name: sha256_file(tuned / name) for name in names}
        for name, expected in hashes.items():
            if sha256_file(restored / name) != expected:
                raise VerificationError(
                    f"{restored / name} differs from {tuned / name}; delete {restored} and run again"
                )
        return {"sha256": hashes, "shown": f"bit-equal, sha256 {next(iter(hashes.values()))[:16]}..."}

    def check_served_models(self) -> Figures:
        """Both models behind the real API; a reply survives the death of its worker."""
        found = check_identity_and_failover(self._served(), BASE, TUNED)
        write_json(self.folder / "chat.json", found, follows_link=False)
        cut = found["cut"]
        if cut["error"]:
            outcome = f"worker killed, error named: {cut['error']}"
        else:
            how = "the same words as without the kill" if found["is_identical"] else "continued"
            outcome = f"worker killed, reply completed ({how}) after a pause of {cut['longest_gap_seconds']:.1f} s"
        return {"outcome": outcome, "shown": f"the tuned model says Vicuna, the base does not; {outcome}"}

    def answer(self) -> Figures:
        """Some of the eighty questions, evenly over the categories, to both models."""
        server = self._served()
        output = self.folder / "eval" / "answers.jsonl"
        for model in (BASE, TUNED):
            self._vicuna("eval", "answer", "--model", model, "--base-url", server.base_url, "--output", output,
                         "--num-questions", NUM_QUESTIONS, "--max-tokens", MAX_TOKENS, *SAMPLING)  # fmt: skip
        count = sum(1 for _ in read_jsonl(output))
        return {
            "num_answers": count,
            "shown": f"{count} answers, {NUM_QUESTIONS} questions, {MAX_TOKENS} tokens at most",
        }

    def judge_answers(self) -> Figures:
        """Pairwise, in both orders."""
        folder = self.folder / "eval"
        judge = ["eval", "judge", "--mode", "pair", "--answers", folder / "answers.jsonl"]
        judge += ["--output", folder / "judgments.jsonl"]
        if self.judge:
            self._vicuna(*judge, "--judge", self.judge)
        else:
            with running_rule_judge() as base_url:
                self._vicuna(*judge, "--judge", "rule-judge", "--base-url", base_url)
        report = ["--output", folder / "report.html", "--json", folder / "report.json"]
        self._vicuna("eval", "report", "--judgments", folder / "judgments.jsonl", *report)
        figures = read_json(folder / "report.json")
        return {"report": figures, "shown": figures["findings"][0].partition(". ")[0]}

    def _served(self) -> Server:
        """The running server; started at the first call, and left to `close`."""
        if self.server is None:
            models = {BASE: Path(self.workspace.figures("model")["path"]), TUNED: self.folder / "restored"}
            flags = [word for name, path in models.items() for word in ("--model", f"{name}={path}")]
            log.info(style(f"      $ vicuna serve {shlex.join([*flags, *FLAGS])}", "dim"))
            server = Server(models, self.folder / "serve.log")
            self.server = server.__enter__()
        return self.server

    def _fresh(self, name: str) -> None:
        """Remove a result that a kill left without its note: the command refuses a folder that is not empty."""
        remove(self.folder / name)

    def _vicuna(self, *arguments: object) -> None:
        """Run a public command as a user would, its lines and bars going to the terminal.

        Raises:
            VicunaError: it failed; it has said why itself.
        """
        words = [str(argument) for argument in arguments]
        log.info(style(f"      $ vicuna {shlex.join(words)}", "dim"))
        # Threads that spin while they wait for each other make a busy machine many times slower.
        keys = ("OPENAI_API_KEY",) if words[0] == "eval" else ()  # of the judge
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **processes.child_environment(*keys), "HF_HUB_OFFLINE": "1"}
        child = processes.spawn([sys.executable, "-m", "vicuna", *words], environment, stdout=sys.stderr)
        if status := wait_for(child):
            raise StageFailed(words[0], status)

    def close(self) -> None:
        """Stop the server, if it was needed."""
        if self.server is not None:
            self.server.__exit__(None, None, None)
            self.server = None


def wait_for(child: subprocess.Popen[bytes]) -> int:
    """The exit code of a command.

    Ctrl-C or SIGTERM is passed on to it, and its end is waited for: training saves a checkpoint then.
    """
    try:
        return child.wait()
    except (KeyboardInterrupt, SystemExit) as end:
        try:
            child.send_signal(signal.SIGINT if isinstance(end, KeyboardInterrupt) else signal.SIGTERM)
            child.wait()
        finally:
            if child.poll() is None:  # the second time ends it at once
                processes.stop([child], grace_seconds=0)
        raise
