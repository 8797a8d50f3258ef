"""The layers of the architecture as Bazel sees them: who may see whose headers.

Headers of a folder are a library `h`, whose visibility is the layer rule; sources of a folder are a library named
after it. tests/lint/layers.py checks the same rule include by include, and a little more strictly: an interface
header in proxy/api brings along the headers it needs, which Bazel cannot tell from headers asked for.
"""

load("@rules_cc//cc:defs.bzl", "cc_library", "cc_test")

# An include may only point left (up, here).
ORDER = [
    ["proxy/base"],
    ["protos"],
    ["proxy/event", "proxy/stats"],
    ["proxy/net"],
    ["proxy/http"],
    ["proxy/observe"],
    ["proxy/route", "proxy/upstream"],
    ["proxy/request"],
    ["proxy/config"],
    ["proxy/server"],
]

# Layers whose types the interface headers name.
API_NEEDS = ["proxy/base", "protos", "proxy/event", "proxy/stats", "proxy/net", "proxy/http", "proxy/observe"]
FILTERS = ["filters/http", "filters/network", "filters/listener", "filters/tracers"]
EVERYTHING = [folder for group in ORDER for folder in group] + FILTERS + ["filters/common", "filters", "xds"]

COPTS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wvla",
    "-Wcast-qual",
    "-Werror",
    "-D_GNU_SOURCE",
    "-g",
    "-O2",
    "-fvisibility=hidden",
    "-fno-common",
    "-ffunction-sections",
    "-fdata-sections",
    "-fstack-protector-strong",
    "-fstack-clash-protection",
    "-fcf-protection",
    "-fno-plt",
]
C_ONLY = ["-std=gnu11", "-Wmissing-prototypes"]
CXX_ONLY = ["-std=c++17", "-fno-exceptions", "-fno-rtti"]
LINKOPTS = [
    "-fuse-ld=lld",
    "-Wl,--gc-sections",
    "-Wl,-z,relro,-z,now",
]

# What the `/* link: … */` line of a test asks for (make reads it from the file, Bazel cannot).
TEST_LINKOPTS = {
    "test_tls": ["-Wl,--wrap=conn_transport_ready,--wrap=conn_transport_failed", "-Wl,--wrap=conn_transport_want_write,--wrap=conn_resume"],
    "test_tls_context": ["-Wl,--wrap=conn_transport_ready,--wrap=conn_transport_failed", "-Wl,--wrap=conn_transport_want_write,--wrap=conn_resume"],
    "test_tls_data": ["-Wl,--wrap=conn_transport_ready,--wrap=conn_transport_failed", "-Wl,--wrap=conn_transport_want_write,--wrap=conn_resume"],
}

def _level(folder):
    for level, group in enumerate(ORDER):
        if folder in group:
            return level
    fail("%s is no layer" % folder)

def _left_of(folder):
    return [f for group in ORDER[:_level(folder)] for f in group]

def _closed(folders):
    """The folders with what their headers need in turn; from proxy/net on, they all need the interfaces."""
    layers = [f for group in ORDER for f in group]
    seen = {f: True for f in folders}
    for folder in folders:
        for needed in _left_of(folder) if folder in layers else []:
            seen[needed] = True
    if "proxy/net" in seen or "proxy/api" in seen:
        for needed in ["proxy/api"] + API_NEEDS:
            seen[needed] = True
    return seen.keys()

def sees(folder):
    """Folders whose headers `folder` may include, itself among them."""
    if folder in FILTERS or folder == "filters/common":
        return _closed([folder, "proxy/api", "proxy/base", "protos", "filters/common"])
    if folder == "filters":
        return _closed(EVERYTHING + ["proxy/api"])
    if folder == "xds":
        return _closed([folder, "proxy/config"])
    if folder == "proxy/api" or folder in ["proxy/base", "protos"]:
        return _closed([folder])
    return _closed([folder, "proxy/api"])

def _visibility(folder):
    """`h` of a folder is visible to exactly the folders that may see it, to main.c and to the tests."""
    packages = [f for f in EVERYTHING + ["proxy/api"] if f != folder and folder in sees(f)]
    return ["//%s:__pkg__" % p for p in packages] + ["//proxy:__pkg__", "//tests:__subpackages__"]

def _headers(folders):
    return ["//%s:h" % f for f in folders]

def headers():
    folder = native.package_name()
    cc_library(
        name = "h",
        hdrs = native.glob(["*.h"]),
        textual_hdrs = native.glob(["*.def", "*.inc"]),
        visibility = _visibility(folder),
    )

def layer():
    """The targets of one folder: `h` its headers, and its sources as a library."""
    folder = native.package_name()
    headers()
    inputs = _headers(sees(folder))
    parts = []
    for suffix, flags in [("c", C_ONLY), ("cc", CXX_ONLY)]:
        sources = native.glob(["*." + suffix])
        if sources:
            parts.append(":sources_" + suffix)
            cc_library(
                name = "sources_" + suffix,
                srcs = sources,
                copts = COPTS + flags,
                linkstatic = True,
                alwayslink = True,
                deps = inputs + ["@prebuilt//:boringssl", "@system//:libraries"] +
                       ([] if folder == "proxy/base" else ["@prebuilt//:protos"]),
            )
    cc_library(
        name = folder.split("/")[-1],
        deps = parts,
        visibility = ["//proxy:__pkg__", "//tests:__subpackages__"],
    )

def all_layers():
    return ["//%s" % folder for folder in EVERYTHING]

def all_headers():
    return _headers(EVERYTHING + ["proxy/api"])

def unit_tests():
    """A cc_test for each test_*.c of this folder."""
    for source in native.glob(["test_*.c"]):
        cc_test(
            name = source[:-2],
            size = "small",
            timeout = "moderate",
            srcs = [source] + native.glob(["*.h"]),
            copts = COPTS + C_ONLY,
            data = native.glob(["data/**"]),
            # A test's own definitions (tests/support/fake_*.h) go before those of the library.
            linkopts = LINKOPTS + ["-Wl,-z,muldefs"] + TEST_LINKOPTS.get(source[:-2], []),
            linkstatic = True,
            deps = all_headers() + ["//tests/support", "@system//:cmocka"],
        )
