"""Stats of two proxies beside each other: what differs is explained by rows with reasons, or told."""

import fnmatch
import re

PAGES = {"counter": "Counters", "gauge": "Gauges"}


def stats_of(proxy, compared, volatile):
    """{name: (kind, value, was it ever written)} of counters and gauges; of volatile ones the value is None."""
    found = {}
    for kind, page in PAGES.items():
        used = {s["name"] for s in proxy.admin(f"/stats?format=json&usedonly&type={page}").json["stats"]}
        for s in proxy.admin(f"/stats?format=json&type={page}").json["stats"]:
            if compared.search(s["name"]):
                found[s["name"]] = (kind, None if volatile.search(s["name"]) else s["value"], s["name"] in used)
    return found


def histograms_of(proxy, compared):
    """The same of histograms: their value is how many values they have."""
    found = {}
    for line in proxy.admin("/stats?type=Histograms&histogram_buckets=cumulative").text.splitlines():
        name, _, buckets = line.partition(": ")
        if compared.search(name):
            counts = re.findall(r"\(\d+,(\d+)\)", buckets)
            found[name] = ("histogram", int(counts[-1]) if counts else 0, bool(counts) and int(counts[-1]) > 0)
    return found


def aspects(ours, envoys):
    """What differs of one stat: name (there or not), kind, value, used."""
    if not ours or not envoys:
        return ["name"]
    return [what for what, a, b in zip(("kind", "value", "used"), ours, envoys) if a != b]


class Differences:
    """Reviewed rows: patterns of stats' names, aspects, a reason; `racy`: the two may agree."""

    def __init__(self, rows):
        self.rows = rows
        self.needed = set()

    def unexplained(self, ours, envoys, ignored="^$"):
        found = {}
        for name in ours.keys() | envoys.keys():
            for what in aspects(ours.get(name), envoys.get(name)):
                rows = [n for n, row in enumerate(self.rows)
                        if what in row["aspects"] and any(fnmatch.fnmatchcase(name, p) for p in row["stats"])]
                self.needed.update(rows)
                if not rows and not re.search(ignored, name):
                    found[f"{name} {what}"] = (ours.get(name), envoys.get(name))
        return found

    def unneeded(self):
        return [row["stats"] for n, row in enumerate(self.rows) if n not in self.needed and not row.get("racy")]
