"""Overload managers for tests: resources whose pressure is a number in a file."""

import os

from support.config import TYPE, typed

MONITORS = "envoy.extensions.resource_monitors."
ACTIONS, POINTS = "envoy.overload_actions.", "envoy.load_shed_points."


def monitor(name, type_name, **fields):
    return typed(name, MONITORS + type_name, **fields)


def injected(name, path):
    return monitor(name, "injected_resource.v3.InjectedResourceConfig", filename=str(path))


def rule(name, resource, threshold=None, scaled=None, **fields):
    """An action or a load shed point."""
    trigger = {"name": resource}
    trigger.update({"scaled": dict(zip(("scaling_threshold", "saturation_threshold"), scaled))} if scaled
                   else {"threshold": {"value": threshold or 0.9}})
    return {"name": name, "triggers": [trigger], **fields}


def scale_timers():
    return {"@type": TYPE + "envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
            "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}]}


class Pressures:
    """One file for each resource, replaced as an operator would."""

    def __init__(self, directory, *names):
        self.directory = directory
        directory.mkdir(exist_ok=True)
        for name in names:
            self.set(name, 0.1)

    def set(self, name, value):
        fresh = self.directory / f"{name}.new"
        fresh.write_text(str(value))
        os.replace(fresh, self.directory / name)

    def monitors(self):
        return [injected(path.name, path) for path in sorted(self.directory.iterdir())]


def manager(pressures, actions=(), points=(), **fields):
    return {"refresh_interval": "0.02s", "resource_monitors": pressures.monitors(), "actions": list(actions),
            "loadshed_points": list(points), **fields}
