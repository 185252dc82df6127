"""Jobs of many small tasks in spawned processes that may hang, crash or be killed.

A decoder stuck inside C code cannot be interrupted from Python, so every job runs in a process of
its own, says which task it is at, and is killed when one task takes too long. The job then starts
again without the task that killed it. A process whose parent was killed ends with its task, or when
the task's time is over.
"""

from collections.abc import Callable, Iterator
import dataclasses
import multiprocessing
from multiprocessing.connection import Connection, wait
import signal
import time
import traceback

from foley_jax.runtime import outputs

# run(job, skip, say) does one job: calls say(task) before each task, leaves out tasks in `skip`
# (task -> reason), and returns the result.
Run = Callable[[object, dict[int, str], Callable[[int], None]], object]

START_UP_S = 300.0  # a fresh process imports before its first task
ORPHAN_S = 10.0  # a process ends itself so long after its parent should have ended it


@dataclasses.dataclass
class _Running:
    job: object
    skip: dict[int, str]
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    task: int | None
    deadline: float


def run_jobs(
    jobs: list,
    run: Run,
    *,
    workers: int,
    task_limit_s: float,
    on_task: Callable[[object, int], None],
) -> Iterator[tuple[object, object]]:
    """Runs jobs in parallel; yields (job, result) as they finish.

    Args:
      jobs: picklable things.
      run: a top-level function, see `Run`.
      workers: processes at a time.
      task_limit_s: a task that takes longer gets its process killed and is skipped with reason
        "timeout"; one whose process dies by itself with "crashed". What follows the tasks of a job
        may be announced as one more task, but cannot be skipped.
      on_task: called with (job, task) for every task begun, again if its job restarts.
    Raises:
      outputs.OutputError: a job could not write its result.
      RuntimeError: a job failed outside its tasks (the text is its traceback), or twice at a task
        that it does not skip.
    """
    context = multiprocessing.get_context("spawn")
    waiting = [(job, {}) for job in reversed(jobs)]
    running: list[_Running] = []

    def start(job: object, skip: dict[int, str]) -> _Running:
        ours, theirs = context.Pipe(duplex=False)
        args = (run, job, skip, theirs, task_limit_s + ORPHAN_S)
        process = context.Process(target=_child, args=args, daemon=True)
        process.start()
        theirs.close()
        return _Running(job, skip, process, ours, None, time.monotonic() + START_UP_S)

    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(start(*waiting.pop()))
            next_deadline = min(one.deadline for one in running)
            patience_s = max(0.0, next_deadline - time.monotonic())
            ready = wait([one.pipe for one in running], timeout=patience_s)
            for one in list(running):
                if one.pipe in ready:
                    outcome = _listen(one, task_limit_s, on_task)
                elif time.monotonic() > one.deadline:
                    outcome = ("lost", "timeout")
                else:
                    continue
                if outcome is None:
                    continue
                running.remove(one)
                kind, value = outcome
                _end(one)
                if kind == "done":
                    yield one.job, value
                elif kind == "stopped":
                    raise outputs.OutputError(value)
                elif kind == "failed" or one.task is None or one.task in one.skip:
                    raise RuntimeError(f"job {one.job} failed:\n{value}")
                else:
                    waiting.append((one.job, {**one.skip, one.task: value}))
    finally:
        for one in running:
            _end(one)


def _listen(
    one: _Running, task_limit_s: float, on_task: Callable[[object, int], None]
) -> tuple[str, object] | None:
    """Takes one message; returns how the process ended, or None while it works."""
    try:
        kind, value = one.pipe.recv()
    except (EOFError, OSError):
        return "lost", "crashed"
    if kind != "task":
        return kind, value
    one.task, one.deadline = value, time.monotonic() + task_limit_s
    on_task(one.job, value)
    return None


def _end(one: _Running) -> None:
    one.pipe.close()
    one.process.kill()
    one.process.join()


def _child(
    run: Run, job: object, skip: dict[int, str], pipe: Connection, task_limit_s: float
) -> None:
    def say(task: int) -> None:
        pipe.send(("task", task))
        # with its default action the alarm ends the process wherever it is stuck
        signal.setitimer(signal.ITIMER_REAL, task_limit_s)

    try:
        result = run(job, skip, say)
        pipe.send(("done", result))
    except BrokenPipeError:  # the parent was killed
        return
    except outputs.OutputError as error:
        pipe.send(("stopped", str(error)))
    except Exception:  # whatever it was, the parent must know
        pipe.send(("failed", traceback.format_exc()))
