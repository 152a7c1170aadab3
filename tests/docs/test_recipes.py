"""The recipes for Slurm and Kubernetes in docs/recipes.md are run as they stand there, with programs that play the cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RECIPES = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
FULL = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. "
    "GPU 0 has a total capacity of 23.64 GiB of which 1.02 GiB is free."
)
BROKEN = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
TRAINING = {
    "time limit": "os.kill(os.getpid(), 15)",
    "finished": "pass",
    "too large": f"sys.exit({FULL!r})",
    "broken card": f"sys.exit({BROKEN!r})",
}


def block(heading: str, kind: str) -> str:
    """The first block of a kind below a heading."""
    _, _, below = RECIPES.partition(f"{heading}\n")
    found = re.search(rf"^```{kind}\n(.*?)^```", below, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


class Cluster:
    """A folder with programs first on PATH; `calls` is what scontrol was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        self.program("lfdoctor", f'exec {sys.executable} -c "import sys; from doctor.cli.main import main; sys.exit(main())" "$@"')
        self.program("srun", 'exec "$@"')
        self.program("runuser", 'echo "runuser $2" >> calls; shift 3; exec "$@"')
        self.program(
            "scontrol", f'echo "$@" >> {folder}/calls; if [ "$1" = show ]; then printf "   StdErr=/dev/null\\n   StdOut=%s\\n" "$LOG"; fi'
        )

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def training(self, does: str) -> None:
        """llamafactory-cli ends as TRAINING says."""
        (self.folder / "train.py").write_text(f"import os, sys\nprint('llamafactory: training', flush=True)\n{TRAINING[does]}\n")
        self.program("llamafactory-cli", f"exec {sys.executable} {self.folder}/train.py")
        (self.folder / "train.yaml").write_text("model_name_or_path: m\nstage: sft\ndo_train: true\ndataset: a\noutput_dir: saves/x\n")

    def run(self, script: str, shell: str = "sh", **variables: str) -> int:
        """The script's exit code."""
        (self.folder / "script.sh").write_text(script)
        env = {**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **variables}
        done = subprocess.run([shell, "script.sh"], cwd=self.folder, env=env, capture_output=True, text=True, timeout=120)
        self.stderr = done.stderr
        return done.returncode

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.mark.parametrize(
    ("does", "restarts", "code", "calls"),
    [
        ("time limit", None, 143, ["requeue 77"]),
        ("time limit", "4", 143, ["requeue 77"]),
        ("time limit", "5", 143, []),
        ("finished", None, 0, []),
        ("too large", None, 1, []),
        ("broken card", None, 1, ["update JobId=77 ExcNodeList=gpu012", "requeue 77"]),
        ("broken card", "5", 1, []),
    ],
)
def test_requeue(cluster, does, restarts, code, calls):
    """A job that met its limit is put back, five times at most; one on a broken card goes elsewhere; no other is."""
    cluster.training(does)
    variables = {"SLURM_JOB_ID": "77", "SLURMD_NODENAME": "gpu012", **({"SLURM_RESTART_COUNT": restarts} if restarts else {})}
    assert cluster.run(block("### Requeue at the time limit, and away from a broken node", "sh"), **variables) == code, cluster.stderr
    assert cluster.calls == calls
    assert (cluster.folder / f"doctor-77-{restarts or 0}" / "report.json").exists()


def test_the_requeue_script_asks_slurm_for_its_signal(cluster):
    """The lines that Slurm itself reads: SIGTERM before the limit, a job that may be requeued, one log."""
    script = block("### Requeue at the time limit, and away from a broken node", "sh")
    asked = re.findall(r"^#SBATCH (\S+)$", script, re.MULTILINE)
    assert asked == ["--signal=TERM@120", "--requeue", "--open-mode=append"]
    assert script.startswith("#!/bin/bash\n#SBATCH")


@pytest.mark.parametrize(
    ("log", "told"), [(f"llamafactory\nTraceback (most recent call last):\n{FULL}\n", True), ("hello\n", False), ("", False), (None, False)]
)
def test_epilog(cluster, log, told):
    """A failed training gets a report beside its output, as its own user; other jobs cost nothing; it never fails."""
    path = cluster.folder / "slurm-77.out"
    if log is not None:
        path.write_text(log)
    script = block("### A report beside the output of every failed job", "sh")
    assert cluster.run(script, "sh", SLURM_JOB_ID="77", SLURM_JOB_USER="kim", LOG=str(path)) == 0
    report = cluster.folder / "slurm-77.out.md"
    assert report.exists() == told
    assert cluster.calls == ["show job 77", *(["runuser kim"] if told else [])]
    if told:
        assert "memory/gpu-" in report.read_text()


def test_an_epilog_without_the_program_does_not_drain_the_node(cluster):
    """lfdoctor is not installed there: exit code 0 all the same."""
    cluster.program("lfdoctor", "exit 127")
    log = cluster.folder / "slurm-77.out"
    log.write_text("llamafactory\n")
    script = block("### A report beside the output of every failed job", "sh")
    assert cluster.run(script, "sh", SLURM_JOB_ID="77", SLURM_JOB_USER="kim", LOG=str(log)) == 0


def job() -> dict:
    """The Kubernetes job's container."""
    (container,) = yaml.safe_load(block("## Kubernetes: the cause in `kubectl describe pod`", "yaml"))["spec"]["template"]["spec"][
        "containers"
    ]
    return container


@pytest.mark.parametrize(("does", "code", "words"), [("too large", 1, "error memory/gpu-"), ("broken card", 1, "gpu-hardware-fault")])
def test_termination_message(cluster, does, code, words):
    """The container ends with the training's code, and its message names rule and cause in at most 4096 bytes."""
    cluster.training(does)
    container, message = job(), cluster.folder / "message"
    assert container["command"] == ["/bin/sh", "-c"]
    given = {entry["name"]: entry["value"] for entry in container["env"]}
    assert given["MESSAGE"] == container["terminationMessagePath"]
    assert given["OUT"] == container["volumeMounts"][0]["mountPath"]
    assert cluster.run(container["args"][0], "sh", OUT=str(cluster.folder), MESSAGE=str(message)) == code, cluster.stderr
    assert words in message.read_text()
    assert message.stat().st_size <= 4096
