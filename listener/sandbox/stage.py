"""What the parts of a running sandbox share."""

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from listener.sandbox.faults import Fault, Place, Script
from listener.sandbox.steps import OnStep, SandboxStep
from listener.sandbox.tasks import SandboxClock, Tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The session, time, tasks and faults of one sandbox, and the callback for its steps."""

    session: aiohttp.ClientSession
    clock: SandboxClock
    tasks: Tasks
    script: Script
    on_step: OnStep

    def strike(self, place: Place, detail: Mapping[str, str]) -> frozenset[Fault]:
        """Pass a place of the script, and return the faults that struck."""
        faults = self.script.strike(place)
        for fault in sorted(faults):
            self.on_step(SandboxStep.FAULT, {**detail, "fault": fault})
        return faults
