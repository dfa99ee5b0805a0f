"""What this machine has, and a one-line fix for each problem."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.markup import escape

NEEDED = {
    "torch": ">=2.6",
    "transformers": ">=5",
    "trl": ">=1.16,<2",
    "datasets": ">=4.7",
    "accelerate": ">=1.10.1",
    "peft": ">=0.18",
    "gymnasium": ">=1.0",
    "stable-baselines3": ">=2.7",
}
FREE_GB_NEEDED = 1.0


def examine() -> int:
    """Print findings and fixes; returns the number of problems (0: all is well)."""
    console = Console(highlight=False, soft_wrap=True)  # a fix is there to be copied: never broken into two lines
    for line in facts():
        console.print(escape(line))
    found = list(problems())
    for problem, fix in found:
        console.print(f"[red]problem[/red]  {escape(problem)}\n    fix  {escape(fix)}")
    console.print("no problems found" if not found else f"{len(found)} problem{'s' if len(found) > 1 else ''}")
    return min(len(found), 1)


def facts() -> Iterator[str]:
    """Versions, device, threads, offline state."""
    yield f"python             {platform.python_version()} ({platform.platform()})"
    for package in NEEDED:
        yield f"{package:18} {_version(package) or 'missing'}"
    if _version("torch"):
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
        yield f"device             {', '.join(gpus) or 'cpu'}; {threads}"
    yield f"hub                {'offline (HF_HUB_OFFLINE is set)' if _is_offline() else 'online if the network is'}"
    yield f"free disk          {_free_gb():.1f} GB in {Path.cwd()}"


def problems() -> Iterator[tuple[str, str]]:
    """(what is wrong, what to type)."""
    for package, wanted in NEEDED.items():
        found = _version(package)
        if found is None or not SpecifierSet(wanted).contains(found, prereleases=True):
            yield (
                f"{package} {found or 'is missing'}; needed: {wanted}",
                f'pip install -c constraints.txt "{package}{wanted}"',
            )
    if _free_gb() < FREE_GB_NEEDED:
        yield f"{_free_gb():.1f} GB free here", "type runs_dir=/another/disk, or delete old folders in runs/"
    if not os.access(Path.cwd(), os.W_OK):
        yield f"{Path.cwd()} can not be written to", "cd to a folder of yours, or type runs_dir=/another/folder"
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads == "1" and (os.cpu_count() or 1) > 1:
        yield "OMP_NUM_THREADS=1 leaves cores idle", f"export OMP_NUM_THREADS={os.cpu_count()}"


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def _free_gb() -> float:
    return shutil.disk_usage(Path.cwd()).free / 1e9


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
