"""The launch scripts, against programs that only write down what they are asked."""

import os
from pathlib import Path
import shutil
import subprocess
import sys

import fake_cloud
import pytest

TRAIN = ("--", "--config=configs/ldm.py", "--workdir=gs://b/my runs/ldm")
TPU = ("pod", "--zone=z", "--type=v5litepod-64", "--project=p")
COMMAND = (
    "cd foley_jax && . launch/env_tpu.sh &&\n    exec .venv/bin/python -m foley_jax.main "
    "--distributed --config=configs/ldm.py --workdir=gs://b/my\\ runs/ldm"
)
SCRIPTS = sorted(path.name for path in (fake_cloud.ROOT / "launch").glob("*.sh"))
CLUSTER = ("tpu_pod.sh", "tpu_queued.sh", "gke.sh", "slurm.sh")


@pytest.fixture
def cloud(tmp_path):
    return lambda **answers: fake_cloud.Cloud(
        tmp_path / "cloud", {words.replace("_", " "): found for words, found in answers.items()}
    )


def _trained(cloud):
    return [call for call in cloud.calls() if any("foley_jax.main" in word for word in call)]


def test_a_pod_is_made_filled_and_trained_on_every_host(cloud):
    fake = cloud(describe=[("", 1)])
    done = fake.run("tpu_pod.sh", *TPU, "--delete", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert fake.verbs() == [
        "gcloud compute tpus tpu-vm describe",
        "gcloud compute tpus tpu-vm create",
        "gcloud compute tpus tpu-vm scp",
        "gcloud compute tpus tpu-vm ssh",
        "gcloud compute tpus tpu-vm ssh",
        "gcloud compute tpus tpu-vm delete",
    ]
    create, train = fake.calls()[1], _trained(fake)[0]
    assert {"--accelerator-type=v5litepod-64", "--version=v2-alpha-tpuv5-lite"} < set(create)
    assert {"pod", "--zone=z", "--project=p", "--worker=all"} < set(train)
    assert train[-1] == f"--command={COMMAND}"


def test_a_pod_that_is_there_is_not_made_again(cloud):
    fake = cloud(describe=[("READY", 0)])
    assert fake.run("tpu_pod.sh", *TPU, *TRAIN).returncode == 0
    assert not any(word in verb for verb in fake.verbs() for word in ("create", "delete"))


def test_a_stopped_run_goes_on_and_is_installed_once(cloud):
    fake = cloud(**{"foley_jax.main".replace("_", " "): [("", 75), ("", 75), ("", 0)]})
    assert fake.run("tpu_pod.sh", *TPU, *TRAIN, BROKEN_S="0").returncode == 0
    assert len(_trained(fake)) == 3
    assert sum("scp" in call for call in fake.calls()) == 1


def test_a_broken_run_is_given_up(cloud):
    fake = cloud(**{"foley jax.main": [("", 1)] * 9})
    done = fake.run("tpu_pod.sh", *TPU, *TRAIN)
    assert done.returncode == 1 and "3 times in a row" in done.stderr
    assert len(_trained(fake)) == 3


@pytest.mark.slow
def test_a_slice_that_is_taken_away_is_asked_for_again(cloud):
    states = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "SUSPENDED"]
    answers = [("", 1), *((state, 0) for state in states), ("", 1), ("ACTIVE", 0)]
    fake = cloud(**{"queued-resources describe": answers, "foley jax.main": [("", 255)]})
    done = fake.run("tpu_queued.sh", *TPU, "--spot", *TRAIN)
    assert done.returncode == 0, done.stderr
    asked = [verb.split()[-1] for verb in fake.verbs() if "describe" not in verb]
    assert asked == [
        "create",  # of the queue; then two waits
        "60",
        "60",
        "scp",
        "ssh",
        "ssh",  # trains, and is taken away
        "delete",
        "create",
        "scp",
        "ssh",
        "ssh",  # trains to its end
        "delete",
    ], asked
    create = next(call for call in fake.calls() if "create" in call)
    assert {"--spot", "--node-id=pod", "--runtime-version=v2-alpha-tpuv5-lite"} < set(create)


def test_a_cluster_of_containers_gets_an_image_of_this_commit(cloud):
    fake = cloud()
    options = ("--cluster=c", "--image=registry/foley", "--zone=z", "--type=v6e-16", "--slices=2")
    done = fake.run("gke.sh", "job", *options, *TRAIN)
    assert done.returncode == 0, done.stderr
    build, push, create = fake.calls()
    head = ["git", "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(
        head, cwd=fake_cloud.ROOT, capture_output=True, text=True
    ).stdout.strip()
    assert build[:4] == ["docker", "build", "-f", "launch/Dockerfile"]
    assert push == ["docker", "push", f"registry/foley:{commit}"]
    assert {"--tpu-type=v6e-16", "--num-slices=2", "--max-restarts=100"} < set(create)
    assert create[-1].endswith("--config=configs/ldm.py --workdir=gs://b/my\\ runs/ldm")
    assert (fake_cloud.ROOT / "launch" / "Dockerfile").is_file()


def test_slurm_gets_a_task_for_every_gpu_and_time_to_save(cloud):
    fake = cloud()
    done = fake.run(
        "slurm.sh", "job", "--nodes=2", "--gpus=4", "--time=1:00:00", "--dry-run", *TRAIN
    )
    assert done.returncode == 0 and not fake.calls()
    assert "--ntasks-per-node=4 --gpus-per-node=4" in done.stderr
    assert "--requeue --signal=TERM@120" in done.stderr and "--time=1:00:00" in done.stderr
    assert r"--distributed --config=configs/ldm.py --workdir=gs://b/my\ runs/ldm" in done.stderr


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (75, 0), (1, 1)])
def test_a_slurm_job_is_queued_again_if_it_was_stopped(cloud, code, ends):
    fake = cloud(srun=[("", code)])
    done = fake.run("slurm_job.sh", "python3", "--distributed", *TRAIN[1:], SLURM_JOB_ID="17")
    assert done.returncode == ends, done.stderr
    train, *rest = fake.calls()
    assert train == ["srun", "--kill-on-bad-exit=1", "python3", "-m", "foley_jax.main"] + [
        "--distributed",
        *TRAIN[1:],
    ]
    assert rest == ([["scontrol", "requeue", "17"]] if code == 75 else [])


@pytest.mark.parametrize("script", CLUSTER)
def test_dry_runs_ask_nobody_and_mistakes_are_one_line(cloud, script):
    fake = cloud()
    place = ("--cluster=c", "--image=i") if script == "gke.sh" else ()
    where = () if script == "slurm.sh" else ("--zone=z", "--type=v5p-32")
    done = fake.run(script, "name", *where, *place, "--dry-run", *TRAIN)
    assert done.returncode == 0 and done.stderr.startswith("+ "), done.stderr
    for arguments, message in (
        (("name", "--nonsense=1"), "unknown option --nonsense"),
        ((*where, *place, *TRAIN), "the name of the"),
        (("name", *where, *place), "what to train is missing"),
    ):
        done = fake.run(script, *arguments)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    done = fake.run(script, "--help")
    assert done.returncode == 0 and f"bash launch/{script} NAME" in done.stdout
    assert not fake.calls()


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_clean(script):
    # of the environment that the tests run in, which need not be on PATH
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [shutil.which("shellcheck", path=here), "-x", f"launch/{script}"]
    done = subprocess.run(command, cwd=fake_cloud.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
