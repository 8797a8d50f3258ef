"""Includes may only point left: base, protos, (event, stats), net, http, observe, (route, upstream), request,
config, server, main.c. Filters see proxy/api, proxy/base, the protos and filters/common; xds/ a few folders."""
import re

from source import ROOT, Finding, c_files

ORDER = [["proxy/base"], ["protos"], ["proxy/event", "proxy/stats"], ["proxy/net"], ["proxy/http"],
         ["proxy/observe"], ["proxy/route", "proxy/upstream"], ["proxy/request"], ["proxy/config"],
         ["proxy/server"]]
LEVEL = {folder: level for level, group in enumerate(ORDER) for folder in group}
# Interface headers name types of the layers that carry a request, none of those that decide about it.
API_SEES = {"proxy/base", "protos", "proxy/event", "proxy/stats", "proxy/net", "proxy/http", "proxy/observe"}
FILTERS_SEE = {"proxy/api", "proxy/base", "protos", "filters/common"}
# stats: the control plane's own counters. upstream: the store builds host sets, resolves names and ejects hosts.
XDS_SEES = {"proxy/base", "protos", "proxy/event", "proxy/stats", "proxy/config", "proxy/upstream", "xds"}
# Single headers of other layers: what a secret compiles to, endpoint metadata, route tables and scopes to publish.
XDS_SEES_FILES = {"proxy/net/tls_cert.h", "proxy/observe/metadata.h", "proxy/route/route_table.h",
                  "proxy/route/route_vhds.h", "proxy/route/scope.h"}
# Those that own connections to control planes.
XDS_CONNECTS = {"xds/dial.c", "xds/dial.h", "xds/rest_call.c"}
# Everything below works on compiled structs; only compile functions look at messages. (server shows the bootstrap and
# admin's own messages, off the request path.)
NO_GENERATED = {"proxy/base", "proxy/event", "proxy/stats", "proxy/http"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.M)


def folder_of(path):
    """The layer folder a path belongs to, "" for main.c and what is not layered."""
    parts = path.split("/")
    if parts[0] in ("proxy", "filters") and len(parts) > 2:
        return "/".join(parts[:2])
    return parts[0] if parts[0] in ("protos", "xds", "tests", "filters") and len(parts) > 1 else ""


def allowed_in_proxy(folder, target):
    if folder not in LEVEL:
        return True
    if target == "proxy/api":
        return LEVEL[folder] > LEVEL["protos"]
    return target == folder or target in LEVEL and LEVEL[target] < LEVEL[folder]


def stem(path):
    return path.rsplit("/", 1)[-1].split(".")[0]


def allowed(path, folder, include):
    target = folder_of(include)
    if folder in ("tests", "") or path in ("filters/registry.c", "filters/registry.h"):
        return True
    if folder == "proxy/api":
        return target == folder or target in API_SEES
    if folder.startswith("filters"):
        own_header = target == folder and (folder == "filters/common" or stem(include) == stem(path))
        return target in FILTERS_SEE or own_header
    if folder == "xds":
        return target in XDS_SEES or include in XDS_SEES_FILES or path in XDS_CONNECTS and target in ("proxy/net", "proxy/http")
    return allowed_in_proxy(folder, target)


def check_folders():
    """Every folder of sources is known here and to Bazel."""
    bazel = (ROOT / "bazel/layers.bzl").read_text()
    for folder, path in sorted({file.folder: file.path for file in c_files()}.items()):
        if not folder.startswith(("proxy/", "filters", "xds", "protos")):
            continue
        if folder.startswith("proxy/") and folder not in LEVEL and folder != "proxy/api":
            yield Finding(path, 1, f"{folder} has no place among the layers (tests/lint/layers.py)")
        if not (ROOT / folder / "BUILD").exists() or f'"{folder}"' not in bazel:
            yield Finding(path, 1, f"{folder} needs a BUILD file and a mention in bazel/layers.bzl")


def check():
    yield from check_folders()
    for file in c_files():
        folder = folder_of(file.path)
        for match in INCLUDE.finditer(file.text):
            include, line = match.group(1), file.line_of(match.start(1))
            if file.waived(line):
                continue
            if "/" not in include:
                yield Finding(file.path, line, f'include "{include}" must be written from the root of the tree')
            elif not allowed(file.path, folder, include):
                yield Finding(file.path, line, f'{folder} may not include "{include}"')
            elif include.startswith("protos/gen/") and folder in NO_GENERATED:
                yield Finding(file.path, line, f'{folder} may not see generated messages ("{include}")')
