"""A Slurm cluster of one node on this machine: munged, slurmctld and slurmd, with ports and files of their own."""

import getpass
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import time

NEEDED = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge", "setpriv": "util-linux"}
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
CPUS = 4  # as many small workers at once, however many cores there are
CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no cluster can be started here; "" where one can."""
    if missing := [name for name in NEEDED if not shutil.which(name, path=PATH)]:
        packages = " ".join(dict.fromkeys(NEEDED[name] for name in missing))
        return f"{', '.join(missing)} missing; apt-get install {packages}"
    return "" if os.geteuid() == 0 else "slurmd wants root"


class Cluster:
    """A cluster; use as a context manager. `variables` has processes use it."""

    def __init__(self):
        self._processes = []

    def __enter__(self):
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm"))  # a socket's path must be short
        for name in ("state", "spool"):
            (self._folder / name).mkdir()
        key = self._folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        conf = self._folder / "slurm.conf"
        host = socket.gethostname().partition(".")[0]
        conf.write_text(
            CONF.format(host=host, user=getpass.getuser(), folder=self._folder, ports=free_ports(2), cpus=CPUS)
        )
        self.variables = {"SLURM_CONF": str(conf)}
        files = [f"--{name}={self._folder}/munge.{name.split('-')[0]}" for name in ("socket", "pid-file", "seed-file")]
        files += [f"--key-file={key}", f"--log-file={self._folder}/munge.log"]
        try:
            self._start("munged", "--foreground", "--force", "--num-threads=2", *files)
            self._wait(lambda: (self._folder / "munge.socket").exists(), "munged")
            self._start("slurmctld", "-D", "-i", "-f", str(conf))
            self._start("slurmd", "-D", "-f", str(conf))
            self._wait(lambda: self("sinfo", "--noheader", "--format=%t").strip() == "idle", "slurmctld and slurmd")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if left := self.jobs():  # of a test that failed
            self("scancel", *left)
            time.sleep(5)
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __call__(self, *command: str) -> str:
        """What a client's command prints; "" where it fails."""
        env = os.environ | self.variables
        return subprocess.run(command, env=env, capture_output=True, text=True).stdout

    def jobs(self) -> dict[str, str]:
        """{ID of a job, with its number in the array: its state} of those that have not ended."""
        lines = self("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def start_requeued(self) -> None:
        """Starts at once what waits for its requeue, which Slurm does after two minutes, with time enough to end."""
        for job, state in self.jobs().items():
            if state == "PENDING":
                self("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=60")

    def _start(self, *command):
        name = command[0]
        with open(self._folder / f"{name}.out", "w") as out:
            self._processes.append(
                subprocess.Popen(
                    # They end with the tests, however those end.
                    ["setpriv", "--pdeathsig=TERM", shutil.which(name, path=PATH), *command[1:]],
                    env=os.environ | self.variables | {"PATH": PATH},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            )

    def _wait(self, there, what):
        deadline = time.monotonic() + 60
        while not there():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in self._folder.glob("*.[lo][ou]*"))
                raise RuntimeError(f"{what} did not start:\n{logs}")
            time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
