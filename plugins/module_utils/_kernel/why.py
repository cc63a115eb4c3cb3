# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a symbol has its value, from the tree's own Kconfig."""

from __future__ import annotations

import os
from typing import Iterable

from ansible_collections.nested.kata.plugins.module_utils._kernel.kconfig import Answer, Menu
from ansible_collections.nested.kata.plugins.module_utils._kernel.source_tree import Workplace, run

# Linked with the objects of the tree's own scripts/kconfig, so that no other implementation of Kconfig is needed
# (kconfiglib 14 cannot read kernels from 5.19 on). It uses only what has the same name and form in 6.1 and in 6.12.
PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include "lkc.h"

static void expression(const char *key, struct expr *e)
{
    struct gstr text;

    if (!e)
        return;
    text = str_new();
    expr_gstr_print(e, &text);
    printf("%s %s\n", key, str_get(&text));
    str_free(&text);
}

static struct menu *next(struct menu *menu)
{
    if (menu->list)
        return menu->list;
    while (menu && !menu->next)
        menu = menu->parent;
    return menu ? menu->next : NULL;
}

int main(int argc, char **argv)
{
    char name[256];
    struct symbol *sym;
    struct menu *menu, *other;

    if (argc != 2)
        return 2;
    conf_parse(argv[1]);
    conf_read(NULL);
    while (fgets(name, sizeof(name), stdin)) {
        name[strcspn(name, "\n")] = 0;
        printf("symbol %s\n", name);
        sym = sym_find(name);
        if (!sym)
            continue;
        sym_calc_value(sym);
        printf("type %s\n", sym_type_name(sym->type));
        expression("depends", sym->dir_dep.expr);
        expression("selected", sym->rev_dep.expr);
        for (menu = &rootmenu; menu; menu = next(menu)) {
            if (menu->sym != sym)
                continue;
            printf("menu %s\n", menu->prompt ? menu->prompt->text : "");
            if (menu->prompt)
                expression("visible", menu->prompt->visible.expr);
            if (!menu->parent || !menu->parent->sym || !sym_is_choice(menu->parent->sym))
                continue;
            for (other = menu->parent->list; other; other = other->next)
                if (other->sym && sym_get_tristate_value(other->sym) == yes)
                    printf("chosen %s\n", other->sym->name);
        }
    }
    return 0;
}
"""


def ask(place: Workplace, symbols: Iterable[str]) -> dict[str, Answer]:
    """Return the answers of the tree's Kconfig about these symbols in the configuration that it made last; raise
    CommandFailed where it cannot be asked.
    """
    source, program, names, answers = map(place.scratch, ("why.c", "why", "names", "answers"))
    for path, text in ((source, PROGRAM), (names, "".join(f"{symbol}\n" for symbol in symbols))):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    objects = os.path.join(place.objects, "scripts/kconfig")
    parts = [os.path.join(objects, name) for name in os.listdir(objects) if name.endswith(".o") and name != "conf.o"]
    headers = [f"-I{place.sources}/scripts/{name}" for name in ("kconfig", "include")]
    if not os.path.exists(program):
        run([place.tree.tool("HOSTCC"), "-w", *headers, "-o", program, source, *parts])
    # As a rule of the tree's own Makefile, since Kconfig's files read variables that only make sets.
    rule = 'nested-kata-whyconfig:\n\t@"$$NESTED_KATA_WHY" Kconfig <"$$NESTED_KATA_NAMES" >"$$NESTED_KATA_ANSWERS"'
    place.make(
        "-s",
        f"KCONFIG_CONFIG={place.scratch('config')}",
        f"--eval={rule}",
        "nested-kata-whyconfig",
        NESTED_KATA_WHY=program,
        NESTED_KATA_NAMES=names,
        NESTED_KATA_ANSWERS=answers,
    )
    with open(answers, encoding="utf-8", errors="replace") as file:
        return parse_answers(file.read())


def parse_answers(text: str) -> dict[str, Answer]:
    """Return the parsed output of PROGRAM, by symbol."""
    found: dict[str, Answer] = {}
    fields: dict[str, str] = {}
    menus: list[Menu] = []
    symbol = ""
    for line in [*text.splitlines(), "symbol "]:
        key, _dummy, value = line.partition(" ")
        if key == "symbol":
            if symbol:
                found[symbol] = Answer(menus=tuple(menus), **fields)
            symbol, fields, menus = value, {}, []
        elif key == "menu":
            menus.append(Menu(value))
        elif key == "visible":
            menus[-1] = Menu(menus[-1].prompt, value)
        else:
            fields[key] = value
    return found
