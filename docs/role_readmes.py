# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the table of variables in each role's README from its argument_specs; with --check, only tell whether it
differs.

What stands above the marker in a README is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"
MARKER = "<!-- From meta/argument_specs.yml, by docs/role_readmes.py -->\n"


def plain(text: str) -> str:
    """Turn Ansible's markup into Markdown that fits a cell of a table."""
    return re.sub(r"\b[CVOEM]\(([^)]*)\)", r"`\1`", text).replace("|", "\\|")


def rows(options: dict, prefix: str = "") -> list[str]:
    """Return a row for each option, those of a dictionary after it."""
    lines = []
    for name, option in options.items():
        meaning = option["description"]
        kind = f"list of {option['elements']}" if option["type"] == "list" else option["type"]
        default = "required" if option.get("required") else json.dumps(option["default"]) if "default" in option else ""
        default = f"`{default}`".replace("|", "\\|") if default and default != "required" else default
        choices = f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}." if "choices" in option else ""
        lines.append(
            f"| `{prefix}{name}` | {kind} | {default} |"
            f" {plain(' '.join(meaning) if isinstance(meaning, list) else meaning)}{choices} |"
        )
        lines += rows(option.get("options", {}), f"{prefix}{name}{'[]' if option['type'] == 'list' else ''}.")
    return lines


def table(options: dict) -> list[str]:
    """Return the lines of a table of variables."""
    return ["| Variable | Type | Default | Meaning |", "|---|---|---|---|", *rows(options)]


def entry_point(name: str, spec: dict) -> list[str]:
    """Return the lines about one entry point: of `main` its variables alone, which the text above is about."""
    if name == "main":
        return table(spec["options"])
    about = [f"## `tasks_from: {name}`", "", plain(" ".join(spec["description"]))]
    return [*about, "", *table(spec["options"])] if spec["options"] else about


def readme(role: Path) -> str:
    """Return the README of a role as it should be."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    by_hand = (role / "README.md").read_text(encoding="utf-8").split(MARKER)[0]
    return by_hand + MARKER + "".join("\n" + "\n".join(entry_point(name, spec)) + "\n" for name, spec in specs.items())


def main() -> int:
    """Write the READMEs, or compare them; return the exit status."""
    differing = [
        role for role in sorted(ROLES.iterdir()) if readme(role) != (role / "README.md").read_text(encoding="utf-8")
    ]
    for role in differing:
        if "--check" in sys.argv[1:]:
            print(f"{role / 'README.md'} differs from its argument_specs: run python3 docs/role_readmes.py")
        else:
            (role / "README.md").write_text(readme(role), encoding="utf-8")
    return 1 if differing and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
