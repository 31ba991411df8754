"""Plugins of a test's own, as pip leaves them behind."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

IMPORTS = "from rnnfarm import *\nfrom rnnfarm import hookimpl\n\n"


def install(
    folder: Path, patch: pytest.MonkeyPatch, name: str, source: str, imports: str = IMPORTS
) -> Path:
    """Install a distribution of one module on the path of this process; return the module's file.

    A module that was installed under the name before is forgotten.
    """
    module = name.replace("-", "_")
    site = folder / "site"
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rnnfarm]\n{module} = {module}\n")
    file = site / f"{module}.py"
    file.write_text(imports + dedent(source))
    if str(site) not in sys.path:
        patch.syspath_prepend(str(site))
    patch.delitem(sys.modules, module, raising=False)
    patch.setattr(sys, "dont_write_bytecode", True)  # an edit within a second is seen
    return file
