"""Real kills of real processes, a fault at every write in turn, and disks that really refuse."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from test_runs import PLAIN, assert_same_run, no_leftovers

from aae_prior import checkpoints, files, runs
from aae_prior.files import CannotWrite
from aae_prior.runs import fit, load

pytestmark = pytest.mark.slow

KILLS = 25
LONG = PLAIN.replace(model="ours", condition="none", device="cpu", steps=140, eval_every=20)


def test_a_run_survives_kills_at_random_moments(tmp_path):
    rng, root = random.Random(0), tmp_path / "killed"
    folder = runs.run_folder(LONG, runs.prepare_data(LONG), root)
    command = [
        sys.executable,
        str(Path(__file__).with_name("training_process.py")),
        json.dumps(LONG.to_dict()),
        str(root),
    ]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )

    def told():
        return server.stdout.readline().strip()

    def start():
        server.stdin.write("train\n")
        server.stdin.flush()
        return int(told())

    assert told() == "ready"
    reached, cut = [], 0
    for _ in range(KILLS):
        pid = start()
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0.0, 1.0))  # while starting and loading
        else:
            time.sleep(rng.uniform(0.0, 1.2) * after_steps(folder, rng.randint(2, 5), pid))  # while training or saving
        os.kill(pid, signal.SIGKILL)
        assert int(told()) == -signal.SIGKILL, "the run ended before all kills"
        reached.append(step_of(folder))
        cut += not no_leftovers(folder)
    print(f"{KILLS} kills, after steps {reached}; {cut} while a file was being written")
    assert reached == sorted(reached) and 0 < reached[-1] < LONG.steps
    start()
    assert told() == "0"
    server.stdin.close()
    server.wait()
    killed = load(folder)
    assert len(killed.record["sittings"]) > KILLS / 2 and no_leftovers(folder)
    assert_same_run(fit(LONG, root=tmp_path / "straight", progress=False), killed)


def step_of(folder):
    "The step of the newest checkpoint on disk."
    return max((int(p.name[:8]) for p in checkpoints.checkpoints(folder)), default=0)


def after_steps(folder, n, pid):
    "Wait until process `pid` has saved `n` steps; the seconds the last of them took."
    seen = [time.monotonic()]
    for step in range(step_of(folder) + 1, step_of(folder) + 1 + n):
        while step_of(folder) < step:
            os.kill(pid, 0)  # an error where it is gone
            assert time.monotonic() - seen[-1] < 300
            time.sleep(0.005)
        seen.append(time.monotonic())
    return seen[-1] - seen[-2]


class Faults:
    "The system calls of a writer; the n-th of them is refused."

    def __init__(self, n, code):
        self.n, self.code, self.count = n, code, 0

    def refuse(self, name):
        self.count += 1
        if self.count == self.n:
            raise OSError(self.code, os.strerror(self.code))

    def wrap(self, name, call):
        def wrapped(*args, **kw):
            self.refuse(name)
            return call(*args, **kw)

        return wrapped

    def open(self, path, mode="r", **kw):
        if "w" not in mode:
            return open(path, mode, **kw)
        self.refuse("open")
        file, faults = open(path, mode, **kw), self
        write, flush = file.write, file.flush

        class File:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def fileno(self):
                return file.fileno()

            def flush(self):
                faults.refuse("flush")
                flush()

            def write(self, data):
                write(data[: len(data) // 2])
                faults.refuse("write")
                write(data[len(data) // 2 :])

        return File()

    def install(self, patch):
        patch.setattr(files, "open", self.open, raising=False)
        for name in ("fsync", "replace", "mkdir"):
            patch.setattr(os, name, self.wrap(name, getattr(os, name)))
        patch.setattr(Path, "unlink", self.wrap("unlink", Path.unlink))


def test_a_fault_at_each_write_in_turn(tmp_path, monkeypatch):
    config = PLAIN.replace(steps=3, eval_every=3)
    straight = fit(config, root=tmp_path / "straight", progress=False)
    begun = tmp_path / "begun"
    for step in (1, 2):
        fit(config, root=begun, progress=False, until=step)
    counter = Faults(0, errno.ENOSPC)
    with monkeypatch.context() as patch:
        counter.install(patch)
        fit(config, root=shutil.copytree(begun, tmp_path / "counted"), progress=False)
    assert counter.count > 50
    for n in range(1, counter.count + 1):
        code = (errno.ENOSPC, errno.EROFS, errno.EIO)[n % 3]
        root, said = shutil.copytree(begun, tmp_path / str(n)), None
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("error")
            Faults(n, code).install(patch)
            try:
                fit(config, root=root, progress=False)
            except CannotWrite as error:
                said = str(error)
        (folder,) = root.iterdir()
        if said is None:
            assert load(folder).complete  # only removing a temporary file may fail in silence
        else:
            assert os.strerror(code) in said and "last good checkpoint: step " in said and "\n" not in said
            assert load(folder).step >= 2
        assert_same_run(straight, fit(config, root=root, progress=False))
        assert no_leftovers(root)
        shutil.rmtree(root)


def in_child(code, *args, prefix=()):
    "A Python process of its own; its return code and what it said last."
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "ignore", "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


CHILD = """
import json, sys
from aae_prior.config import Config
from aae_prior.runs import fit
fit(Config.from_dict(json.loads(sys.argv[1])), root=sys.argv[2], progress=False)
"""


def test_a_disk_that_really_refuses(tmp_path):
    straight = fit(PLAIN, root=tmp_path / "straight", progress=False)
    part = fit(PLAIN, root=tmp_path / "run", progress=False, until=5)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))"
    code, said = in_child(limit + CHILD, json.dumps(PLAIN.to_dict()), tmp_path / "run")
    assert code == 1 and "cannot write" in said and "File too large" in said and "last good checkpoint: step 5" in said
    assert load(part.dir).step == 5 and no_leftovers(part.dir)
    assert_same_run(straight, fit(PLAIN, root=tmp_path / "run", progress=False))


@pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which("setpriv"),
    reason="root may write anywhere, and setpriv is not there to take that right away",
)
def test_a_folder_that_is_read_only(tmp_path):
    drop = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
    straight = fit(PLAIN, root=tmp_path / "straight", progress=False)
    part = fit(PLAIN, root=tmp_path / "run", progress=False, until=5)
    folders = [part.dir, part.dir / "checkpoints", tmp_path / "empty"]
    folders[2].mkdir()
    for folder in folders:
        folder.chmod(0o555)
    try:
        for root in (tmp_path / "run", tmp_path / "empty"):
            code, said = in_child(CHILD, json.dumps(PLAIN.to_dict()), root, prefix=drop)
            assert code == 1 and "cannot write" in said and "Permission denied" in said
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert load(part.dir).step == 5
    assert_same_run(straight, fit(PLAIN, root=tmp_path / "run", progress=False))
