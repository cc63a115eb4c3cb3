# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies images from one location to others: look at all of them, decide, act, and return the result."""

from __future__ import annotations

import functools
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, Sequence

from ansible_collections.nested.kata.plugins.module_utils._common.errors import Refused
from ansible_collections.nested.kata.plugins.module_utils._common.pace import Late
from ansible_collections.nested.kata.plugins.module_utils._common.progress import Progress
from ansible_collections.nested.kata.plugins.module_utils._common.untrusted import shown
from ansible_collections.nested.kata.plugins.module_utils._docker.streams import Transport
from ansible_collections.nested.kata.plugins.module_utils._image.daemon import DaemonError, require_sdk
from ansible_collections.nested.kata.plugins.module_utils._image.fan_out import deliver
from ansible_collections.nested.kata.plugins.module_utils._image.image import Image, same
from ansible_collections.nested.kata.plugins.module_utils._image.layer_store import Unreadable
from ansible_collections.nested.kata.plugins.module_utils._image.layers import Part
from ansible_collections.nested.kata.plugins.module_utils._image.locations import (
    Destination,
    LoadRefused,
    Location,
    Source,
)
from ansible_collections.nested.kata.plugins.module_utils._image.options import Wanted
from ansible_collections.nested.kata.plugins.module_utils._image.plan import (
    Action,
    Found,
    FoundImage,
    Sent,
    Step,
    decide,
)
from ansible_collections.nested.kata.plugins.module_utils._image.platforms import runs_on
from ansible_collections.nested.kata.plugins.module_utils._image.result import (
    Work,
    outcome,
    passed_over,
    result_of,
    summary,
    taken_by,
)

AT_ONCE = 8  # destinations that are looked at in parallel
# Docker 26.1's containerd store removes what nothing refers to after a name is gone, at times also what a load has just
# put there.
LOST_SNAPSHOT = re.compile("parent snapshot .* does not exist")
NO_SPACE = "no space left on device"

Transports = Dict[Location, Transport]


@contextmanager
def transports_to(locations: Sequence[Location]) -> Iterator[Transports]:
    """Yield the transport to each daemon. The first ones begin to connect, which takes about as long as to import the
    SDK.
    """
    transports = {location: transport for location in locations for transport in [location.transport()] if transport}
    try:
        for transport in list(transports.values())[:AT_ONCE]:
            transport.begin()
        yield transports
    finally:
        for transport in transports.values():
            transport.close()


def trouble(work: Work, error: Exception) -> str:
    """Return what went wrong at a destination. Whatever that is, the others get their images."""
    if isinstance(error, (DaemonError, Refused)):
        return str(error)
    title = work.opened.title if work.opened else f"destination {work.location}"
    return shown(f"{title}: {error if isinstance(error, Late) else f'{type(error).__name__}: {error}'}")


# Look


def look_at_source(wanted: Wanted, source: Source, own: Callable[[], str]) -> dict[str, Image]:
    """Return the images of the task, or raise Refused where one of them is not there."""
    found = {reference: source.image(reference, own) for reference in wanted.names}
    images = {reference: image for reference, image in found.items() if image is not None}
    missing = [source.absence(reference) for reference in found if reference not in images]
    if missing:
        raise Refused(f"images: {source.title} has {'; '.join(missing)}: nothing was sent")
    for reference, image in images.items():
        if wanted.platform and not runs_on(image.platform, wanted.platform):
            raise Refused(
                f"platform: {source.title} has {reference} for {image.platform or 'no platform'}, not for"
                f" {wanted.platform}: nothing was sent"
            )
    return images


def look_at_destination(wanted: Wanted, work: Work, images: dict[str, Image], source: Source) -> Found:
    """Return what a destination has of every image, and note the ids for the result."""
    destination, found = work.destination, {}
    for reference, image in images.items():
        replaced = tuple(destination.image(name) for name in wanted.names[reference])
        work.before.update({name: held.id if held else None for name, held in zip(wanted.names[reference], replaced)})
        # Asked only where two ids differ, since no other request costs a daemon as much.
        differs = any(held is not None and held.id != image.id for held in replaced)
        content = differs and (destination.by_content() or source.by_content())
        named = any(held is not None and same(image, held, by_content=content) for held in replaced)
        found[reference] = FoundImage(replaced, None if named else destination.image(image.id), content)
    return Found(found, tuple(destination.tags()) if wanted.prune else (), destination.whole)


def check_layers(work: Work, source: Source) -> None:
    """Raise Refused where a destination needs layers that the source does not have."""
    there: set[str] = set()  # of images that come before
    for step in work.plan.steps:
        lacking = source.lacking(step.reference) if step.action is Action.SEND else {}
        needed = set(lacking) - there
        if needed:
            needed -= work.destination.leave_out(step.image)[0]
        for layer in step.image.layers:
            if layer in needed:
                raise Refused(
                    f"images: {source.title} has {step.reference} without {len(needed)} of its"
                    f" {len(step.image.layers)} layers, which {work.destination.title} does not have: {lacking[layer]}:"
                    " bring the image that they come from there first, or an archive that has them all"
                )
        there.update(step.image.layers)


# Act


def pretend(work: Work) -> None:
    """Note what would be done."""
    for step in work.plan.steps:
        how = work.destination.leave_out(step.image)[1] if step.action is Action.SEND else ""
        work.done.append(outcome(work, step, Sent(step.there.id if step.there else step.image.id), how))
    work.pruned = list(work.plan.pruned)


def act(reference: str, works: Sequence[Work], source: Source, progress: Progress, silence: float) -> None:
    """Bring one image to all destinations without trouble."""
    sending: list[tuple[Work, Step]] = []
    for work in works:
        step = next(step for step in work.plan.steps if step.reference == reference)
        try:
            settled = work.destination.settle(step)
        except Exception as error:
            work.trouble = trouble(work, error)
            continue
        if settled:
            work.done.append(outcome(work, step, settled))
        else:
            sending.append((work, step))
    refused: dict[Location, str] = {}  # why a destination takes nothing less than all layers
    while sending:
        sending = send(reference, sending, source, refused, progress, silence)


def send(
    reference: str,
    sending: Sequence[tuple[Work, Step]],
    source: Source,
    refused: dict[Location, str],
    progress: Progress,
    silence: float,
) -> list[tuple[Work, Step]]:
    """Send one image to several destinations at once; return those that need it again, sent in another way."""
    less = [
        (set(), refused[work.location]) if work.location in refused else work.destination.leave_out(step.image)
        for work, step in sending
    ]
    image = sending[0][1].image
    needed = {layer for leave_out, dummy in less for layer in set(image.layers) - leave_out}
    takers = [
        functools.partial(take, work.destination, step, leave_out)
        for (work, step), (leave_out, dummy) in zip(sending, less)
    ]
    route = f"{reference} to {sending[0][0].location if len(sending) == 1 else f'{len(sending)} destinations'}"

    def say(how_far: str) -> None:
        statuses = [work.destination.status for work, dummy in sending if work.destination.status]
        progress.say(f"{route}: {how_far or ', '.join(statuses) or 'the daemon takes it in'}")

    progress.say(f"{route}: the source prepares it")
    again: list[tuple[Work, Step]] = []
    for job, (work, step), (leave_out, how) in zip(
        deliver(source.parts(reference, image, needed), takers, say, silence), sending, less
    ):
        if job.sent:
            work.done.append(outcome(work, step, job.sent, f"{how}; {source.read_from}"))
        elif isinstance(job.error, Unreadable) and source.forgo(job.error):
            again.append((work, step))
        elif (
            isinstance(job.error, LoadRefused)
            and work.location not in refused
            and worth_another(str(job.error), leave_out)
        ):
            refused[work.location] = (
                f"all layers, after the destination refused {'a part of them' if leave_out else 'them once'}"
                f" ({job.error})"
            )
            again.append((work, step))
        else:
            work.trouble = trouble(work, job.error or TypeError("nothing was reported"))
    return again


def worth_another(complaint: str, leave_out: set[str]) -> bool:
    """Return whether a daemon that refused these layers may take all layers."""
    return LOST_SNAPSHOT.search(complaint) is not None or (bool(leave_out) and NO_SPACE not in complaint)


def take(destination: Destination, step: Step, leave_out: set[str], parts: Iterator[Part]) -> Sent:
    destination.status = ""
    return destination.send(step, parts, leave_out)


def finish(work: Work, warn: Callable[[str], None]) -> None:
    """Complete the work at a destination that has all images."""
    try:
        work.destination.finish()
        for name, kept in work.destination.prune(work.plan.pruned):
            if kept is None:
                work.pruned.append(name)
            else:
                warn(f"{work.destination.title}: prune_other_tags keeps {name}: {kept}")
    except Exception as error:
        work.trouble = trouble(work, error)


# All together


def copy(
    wanted: Wanted,
    transports: Transports,
    works: Sequence[Work],
    check_mode: bool,
    warn: Callable[[str], None],
    progress: Progress,
    extra: dict[str, Any],
) -> None:
    """Look, decide and act. Errors of the source or the images are raised, errors of a destination are noted in its
    work.
    """
    with ExitStack() as stack:
        source = wanted.source.source(transports.get(wanted.source), wanted.silence, wanted.platform)
        stack.callback(source.close)
        stack.callback(lambda: extra.update(taken_by(source), **passed_over(source)))
        pool = stack.enter_context(ThreadPoolExecutor(min(AT_ONCE, len(works))))

        def at_all(do: Callable[[Work], None]) -> None:
            def attempt(work: Work) -> None:
                try:
                    do(work)
                except Exception as error:
                    work.trouble = trouble(work, error)

            list(pool.map(attempt, [work for work in works if not work.trouble]))

        def reach(work: Work) -> None:
            if not work.opened:
                work.opened = work.location.destination(
                    transports.get(work.location), wanted.silence, wanted.at_destination
                )
                stack.callback(work.destination.close)

        def own() -> str:
            at_all(reach)
            platforms = {work.destination.platform() for work in works if not work.trouble}
            return platforms.pop() if len(platforms) == 1 else ""

        def prepare(work: Work) -> None:
            reach(work)
            work.plan = decide(wanted.names, images, look_at_destination(wanted, work, images, source))
            if any(step.action is Action.SEND for step in work.plan.steps):
                work.destination.look_for_layers()
                check_layers(work, source)
            if check_mode:
                pretend(work)

        images = look_at_source(wanted, source, own)
        at_all(prepare)
        if check_mode:
            return
        for reference in wanted.names:
            act(reference, [work for work in works if not work.trouble], source, progress, wanted.silence)
        for work in works:
            if not work.trouble:
                finish(work, warn)


def carry_out(wanted: Wanted, check_mode: bool, warn: Callable[[str], None]) -> dict[str, Any]:
    """Copy the images and return the module's result, or raise Refused, which has the result in its details."""
    works = [Work(location) for location in wanted.destinations]
    if not wanted.names:
        return {**result_of([], check_mode), "msg": summary(works[0], check_mode)}
    trouble = ""
    extra: dict[str, Any] = {}
    try:
        with Progress() as progress, transports_to((wanted.source, *wanted.destinations)) as transports:
            if transports:
                require_sdk()
            copy(wanted, transports, works, check_mode, warn, progress, extra)
    except (Refused, DaemonError) as error:
        trouble = str(error)
        extra.update(getattr(error, "details", {}))
    result = {**result_of(works, check_mode), **extra}
    troubles = list(dict.fromkeys(filter(None, [trouble, *(work.trouble for work in works)])))
    if troubles:
        failed = sum(bool(work.trouble) for work in works)
        prefix = f"{failed} of {len(works)} destinations failed: " if failed and len(works) > 1 else ""
        raise Refused(prefix + "; ".join(troubles), **result)
    return {**result, "msg": "; ".join(summary(work, check_mode) for work in works)}
