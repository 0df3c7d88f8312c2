"""SLURM's commands for one machine, as far as submitit and scorepath use them: each is this file by another name.

What SLURM_STANDIN names is their folder: `told` has what scontrol was told, JOB.pid the processes of jobs.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ.get("SLURM_STANDIN", "."))
COMMANDS = ("sbatch", "srun", "sacct", "scontrol", "scancel")


def install(folder: Path) -> dict[str, str]:
    """The variables of a process that is to find them."""
    folder.mkdir()
    for name in COMMANDS:
        (folder / name).write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "SLURM_STANDIN": str(folder)}


def sbatch(script: str) -> None:
    job = str(os.getpid())
    array = re.search(r"--array=0-(\d+)", Path(script).read_text())
    for task in range(int(array[1]) + 1) if array else (None,):
        name = job if task is None else f"{job}_{task}"
        own = {"SLURM_JOB_ID": f"{job}{task or 0}", "SLURM_JOB_NAME": "submitit", "SLURM_NTASKS": "1"}
        own |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}
        own |= {"SLURM_NODELIST": "localhost", "SLURM_JOB_NODELIST": "localhost"}
        if task is not None:
            own |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(task)}
        else:
            own["SLURM_JOB_ID"] = job
        again = f'while bash {script}; rm "{HOME / name}.requeue" 2>/dev/null; do :; done'
        nowhere = subprocess.DEVNULL
        process = subprocess.Popen(
            ["bash", "-c", again], env={**os.environ, **own}, stdout=nowhere, stderr=nowhere, start_new_session=True
        )
        (HOME / f"{name}.pid").write_text(str(process.pid))
    print("Submitted batch job", job)


def srun(*arguments: str) -> None:
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
    marks = {"%j": job, "%t": "0", "%A": job, "%a": os.environ.get("SLURM_ARRAY_TASK_ID", "")}
    command = list(arguments)
    while command[0].startswith("-"):
        option = command.pop(0)
        if option in ("--output", "--error"):
            file = re.sub("%[jtAa]", lambda found: marks[found[0]], command.pop(0))
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1 if option == "--output" else 2)
    os.execvp(command[0], command)


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for file in HOME.glob("*.pid"):
        alive = Path("/proc", file.read_text()).exists()
        print(f"{file.stem}|{'RUNNING' if alive else 'COMPLETED'}|localhost")


def scontrol(*words: str) -> None:
    (HOME / f"{words[-1]}.requeue").touch()
    with (HOME / "told").open("a") as file:
        file.write(" ".join(words) + "\n")


def scancel(*words: str) -> None:
    for file in HOME.glob(f"{words[-1]}*.pid"):
        os.killpg(int(file.read_text()), signal.SIGTERM)


if __name__ == "__main__":
    {command.__name__: command for command in (sbatch, srun, sacct, scontrol, scancel)}[Path(sys.argv[0]).name](
        *sys.argv[1:]
    )
