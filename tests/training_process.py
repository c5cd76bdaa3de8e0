"""Started as `training_process.py CONFIG ROOT`: for each line it reads it forks a process that trains that run.

It prints the number of the process, then its exit status. It has imported torch and trained a little before, so that
a fork trains at once.
"""

import json
import os
import sys
from pathlib import Path

from aae_prior.config import Config
from aae_prior.runs import fit

config, root = Config.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2])
fit(config.replace(seed=1), root=root / "warm", progress=False, until=1)
print("ready", flush=True)
for _ in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            fit(
                config, root=root, progress=False, checkpoint_seconds=0
            )  # it saves after every step: kills fall into writing, too
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
