"""Write the files of a new op from the templates in tools/new_op: ``./dev new-op NAME``.

The result compiles, and its tests fail until formulas replace the TODOs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "tools" / "new_op"

FILES = {
    "op.h.txt": "csrc/ops/@op@/@op@.h",
    "op.cpu.cpp.txt": "csrc/ops/@op@/@op@.cpu.cpp",
    "op.py.txt": "python/fastdl/ops/@op@.py",
    "test.py.txt": "tests/ops/@op@.py",
    "derivation.md.txt": "docs/derivations/@op@.md",
}


def filled(text: str, op: str) -> str:
    """Return a template with the name of the op in place of its marks."""
    return text.replace("@op@", op).replace("@Op@", "".join(w.capitalize() for w in op.split("_")))


def insert_sorted(text: str, line: str, like: str, key: Callable[[str], str] = str) -> str:
    """Insert a line among the lines that match `like`, which are sorted."""
    lines = text.splitlines(keepends=True)
    places = [i for i, s in enumerate(lines) if re.match(like, s)]
    after = [i for i in places if key(lines[i]) > key(line)]
    lines.insert(after[0] if after else places[-1] + 1, line)
    return "".join(lines)


def list_op(path: Path, op: str) -> None:
    """Add the op to csrc/ops.def."""
    text = insert_sorted(path.read_text(), f'#include "ops/{op}/{op}.h"\n', "#include")
    both = "FASTDL_OP(@Op@Forward, @op@_forward)\nFASTDL_OP(@Op@Backward, @op@_backward)\n"
    like = r"FASTDL_OP\(\w"
    path.write_text(insert_sorted(text, filled(both, op), like, lambda s: s.split(", ")[1]))


def export(path: Path, op: str) -> None:
    """Add the op to the public names of fastdl.ops."""
    text = insert_sorted(
        path.read_text(), f"from fastdl.ops.{op} import {op}, {op}_backward\n", "from fastdl"
    )
    path.write_text(insert_sorted(text, f'    "{op}",\n    "{op}_backward",\n', '    "'))


def main(op: str) -> int:
    """Write everything, or nothing and say why."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", op):
        print(f"new-op: NAME must be snake_case, such as leaky_relu, got {op!r}", file=sys.stderr)
        return 2
    paths = {template: ROOT / filled(name, op) for template, name in FILES.items()}
    there = [str(p.relative_to(ROOT)) for p in paths.values() if p.exists()]
    if there:
        print(f"new-op: {', '.join(there)} exists already; choose another name", file=sys.stderr)
        return 2
    for template, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(filled((TEMPLATES / template).read_text(), op))
        print(path.relative_to(ROOT))
    list_op(ROOT / "csrc/ops.def", op)
    export(ROOT / "python/fastdl/ops/__init__.py", op)
    print(
        f"listed in csrc/ops.def and fastdl.ops; now replace the TODOs, then\n"
        f"  ./dev stubs && ./dev test {op}"
    )
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: ./dev new-op NAME")
    sys.exit(main(sys.argv[1]))
