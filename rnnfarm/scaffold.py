"""A new plugin's folder: ``rnnfarm new-plugin NAME``."""

from __future__ import annotations

import keyword
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template

from rnnfarm.errors import JobError

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1.0"
description = "Parts for rnnfarm"
requires-python = ">=3.11"
dependencies = ["rnnfarm"]

[project.optional-dependencies]
test = ["pytest"]

# How rnnfarm finds the plugin: a module whose functions are marked with @rnnfarm.hookimpl.
[project.entry-points.rnnfarm]
$module = "$module"

[tool.setuptools]
packages = ["$module"]
"""

INIT = '''\
"""The parts that this plugin gives to rnnfarm."""

from __future__ import annotations

import rnnfarm


@rnnfarm.hookimpl
def rnnfarm_cells() -> dict[str, str]:
    return {"leaky": "$module.cells:Leaky"}
'''

CELLS = '''\
"""The cells of this plugin."""

from __future__ import annotations

from typing import Any

from rnnfarm import Cell, affine, parameter, sigmoid, tanh


class Leaky(Cell):
    """A leaky integrator: each unit keeps a share of its state, and learns which."""

    keep: float = 2.0

    def step(self, x: Any, h: Any) -> Any:
        keep = sigmoid(parameter("keep", init=f"constant:{self.keep}"))
        return keep * h + (1 - keep) * tanh(affine(x, h))
'''

TEST = '''\
"""Every cell does what rnnfarm expects of one; gradients agree with central differences."""

from __future__ import annotations

from rnnfarm.testing import check_cell

from $module.cells import Leaky


def test_leaky() -> None:
    check_cell(Leaky())
    check_cell(Leaky(keep=0.0))
'''

JOB = """\
# rnnfarm train job.toml

[data]
path = "data/python-source"
build = { reader = "python-source" }

[model]
input = { kind = "embedding", size = 32 }
layers = [{ cell = "leaky", hidden = 128 }]
loss = "cross_entropy"

[training]
batch = 32
window = 32
steps = 500
optimizer = { name = "adam", lr = 3e-3 }
clip = 1.0
evaluate_windows = 20
"""

README = """\
# $name

Parts for rnnfarm: the cell `leaky`.

```
pip install --editable .
rnnfarm check $name
rnnfarm explain leaky
rnnfarm train job.toml
```
"""

FILES = {
    "pyproject.toml": PYPROJECT,
    "README.md": README,
    "job.toml": JOB,
    "$module/__init__.py": INIT,
    "$module/cells.py": CELLS,
    "tests/test_$module.py": TEST,
}


@dataclass(frozen=True)
class NewPlugin:
    """What was made, and the commands that come next."""

    folder: Path
    next_steps: tuple[str, ...]


def make_plugin(name: str, folder: Path) -> NewPlugin:
    """Write the files of a plugin called ``name`` into the new folder ``folder``.

    Raises JobError where the name is none that a package can have, or the folder is there.
    """
    module = _module_of(name)
    if folder.exists():
        raise JobError(f"{folder}: is there already; name another folder with --out")
    try:
        for path, text in FILES.items():
            file = folder / Template(path).substitute(module=module)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(text).substitute(name=name, module=module), encoding="utf-8")
    except OSError as error:
        raise JobError(
            f"{folder}: cannot be written ({error.strerror}); name a folder elsewhere with --out"
        ) from None
    where = shlex.quote(folder.as_posix())
    return NewPlugin(
        folder,
        (
            f"pip install --editable {where}",
            f"rnnfarm check {name}",
            f"rnnfarm train {shlex.quote((folder / 'job.toml').as_posix())}",
        ),
    )


def _module_of(name: str) -> str:
    """The module's name for a distribution's."""
    module = re.sub(r"[-.]+", "_", name).lower()
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]", name) or not module.isidentifier():
        raise JobError(
            f"new-plugin {name}: is no name for a package; use letters, figures and dashes, such "
            "as my-cells"
        )
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module == "rnnfarm":
        raise JobError(
            f"new-plugin {name}: a module called {module} would hide one that is there already; "
            f"use another name, such as {name}-cells"
        )
    return module
