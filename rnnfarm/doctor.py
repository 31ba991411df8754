"""What this machine has for training, and what is missing (``rnnfarm doctor``)."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from rnnfarm.errors import PluginError
from rnnfarm.plugins import Registry

if TYPE_CHECKING:
    from rnnfarm.kernels.interface import Kernel

PACKAGES = (
    *("rnnfarm", "numpy", "pyarrow", "pluggy", "click", "pydantic", "safetensors", "ray"),
    *("cupy-cuda13x", "cupy-cuda12x", "cupy"),
)
COMPILERS = ("cc", "gcc", "clang")


def examine(registry: Registry) -> dict[str, Any]:
    """Return what was found, JSON-able; ``missing`` holds one sentence for each thing not there."""
    missing: list[str] = []
    plugins = _plugins(registry, missing)
    kernels, about = _kernels(registry, missing)
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": _cores(),
        "memory_bytes": _memory(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "plugins": plugins,
        "kernels": kernels,
        "about": about,
        "blas": _blas(),
        "compiler": _compiler(missing),
        "gpus": _gpus(missing),
        "missing": missing,
    }


def text(report: dict[str, Any]) -> str:
    """Return the report as lines for a person."""
    memory = report["memory_bytes"]
    kernels = {name: "/".join(devices) for name, devices in report["kernels"].items()}
    lines = [
        f"Python    {report['python']} on {report['system']}",
        f"cores     {report['cores']}",
        f"memory    {f'{memory / 2**30:.1f} GiB' if memory else 'unknown'}",
        f"packages  {', '.join(f'{k} {v}' for k, v in report['packages'].items())}",
        f"plugins   {', '.join(f'{k} {v}' for k, v in report['plugins'].items())}",
        f"kernels   {', '.join(f'{k} on {d}' for k, d in kernels.items()) or 'none'}",
    ]
    lines += [f"{name:<9} {one}" for name, told in report["about"].items() for one in told]
    lines += [
        f"BLAS      {b['name']} {b['version']}, {b['threads']} threads" for b in report["blas"]
    ]
    lines.append(f"compiler  {report['compiler'] or 'none'}")
    lines += [f"GPU       {name}" for name in report["gpus"]]
    lines += [f"missing   {sentence}" for sentence in report["missing"]]
    return "\n".join(lines)


def _cores() -> int:
    """Cores that this process may use, which a container may make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int | None:
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _plugins(registry: Registry, missing: list[str]) -> dict[str, str]:
    for plugin in registry.plugins:
        missing.extend([plugin.refused] if plugin.refused else plugin.clashes)
    return registry.versions()


def _kernels(
    registry: Registry, missing: list[str]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the devices of each kernel that loads, the most preferred kernel first, and what those
    that run tell of their device."""
    loaded = {}
    for name in registry.names("kernels"):
        try:
            loaded[name] = registry.get("kernels", name)
        except PluginError as error:
            missing.append(str(error))
    about = {name: _about(name, kernel, missing) for name, kernel in loaded.items()}
    ordered = sorted(loaded.items(), key=lambda item: -item[1].priority)
    devices = {name: list(kernel.devices) for name, kernel in ordered}
    return devices, {name: told for name in devices if (told := about[name])}


def _about(name: str, kernel: type[Kernel], missing: list[str]) -> list[str]:
    """Return what a kernel tells of its device; what it lacks goes to ``missing``."""
    try:
        made = kernel()
        wanted = made.missing()
    except Exception as error:  # whatever a foreign kernel raises
        wanted = f"it cannot be made: {type(error).__name__}: {error}"
    if wanted:
        missing.append(f"the kernel {name!r} does not run: {wanted}")
        return []
    try:
        return [str(sentence) for sentence in made.about()]
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
        missing.append(f"the kernel {name!r} cannot tell of its device: {fault}")
        return []


def _blas() -> list[dict[str, Any]]:
    import numpy  # noqa: F401  (loads the BLAS that is asked about)
    from threadpoolctl import threadpool_info

    return [
        {
            "name": library["internal_api"],
            "version": library["version"],
            "threads": library["num_threads"],
        }
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]


def _compiler(missing: list[str]) -> str | None:
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        missing.append(
            "no C compiler (cc, gcc or clang) is on PATH; compiled CPU kernels need one (or the "
            "package ziglang), the NumPy kernel does not"
        )
    return found


def _gpus(missing: list[str]) -> list[str]:
    """Ask the NVIDIA driver itself, so that nothing need be installed for the question."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        missing.append("no NVIDIA driver (libcuda.so.1) was found; training runs on the CPU")
        return []
    count = ctypes.c_int()
    if (code := driver.cuInit(0)) or (code := driver.cuDeviceGetCount(ctypes.byref(count))):
        missing.append(f"the NVIDIA driver is there but finds no GPU (CUDA error {code})")
        return []
    names = []
    for index in range(count.value):
        name, device = ctypes.create_string_buffer(256), ctypes.c_int()
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode())
    return names
