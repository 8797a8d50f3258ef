#!/usr/bin/env python3
"""The gateway demo: Sluice between clients and three services, told what to do by a control plane that reads YAML files.

Everything listens on the loopback address. Ctrl-C ends it all. Edit the YAML files beside this one while it runs.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import backends
import control_plane

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOST = "counter.lab.example.com"
PORTS = {"admin": 15000, "http": 18080, "https": 18443, "mysql": 13306, "control_plane": 18000, "counter_v1": 18081,
         "counter_v2": 18082, "mysql_server": 13307}
READY_S = 30
STOP_S = 10

TOUR = """
Sluice is ready. Try, in another terminal:

  curl -s -H 'Host: {host}' localhost:{http}/                    # HTTP, by virtual host
  curl -si localhost:{http}/                                                     # any other host: 404
  curl -s --cacert {directory}/tls.crt --connect-to ::localhost:{https} https://{host}/
  echo 'select 1' | curl -sm 1 telnet://localhost:{mysql}                        # TCP

  curl -s localhost:{admin}/config_dump | jq '.configs[3].dynamic_route_configs[].route_config.virtual_hosts[]'
  curl -s localhost:{admin}/listeners
  curl -s localhost:{admin}/clusters
  curl -s localhost:{admin}/stats/prometheus
  curl -s -X POST 'localhost:{admin}/logging?level=debug'
  curl -s localhost:{admin}/

Edit {folder}/routes.yaml (or listeners, clusters, endpoints) and save: it is pushed at once.
Ctrl-C ends everything.
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sluice", type=pathlib.Path, default=os.environ.get("SLUICE", ROOT / "build/sluice"),
                        help="the binary (default: $SLUICE, or build/sluice)")
    parser.add_argument("--config", type=pathlib.Path, default=HERE, help="folder of the YAML files")
    parser.add_argument("--port-base", type=int, default=os.environ.get("PORT_BASE"),
                        help=f"use {len(PORTS)} ports from this one on (default: $PORT_BASE, or "
                        + ", ".join(f"{name} {port}" for name, port in PORTS.items()) + ")")
    return parser.parse_args()


def ports_of(base):
    """The port of each part, or the program's end if one is taken."""
    ports = PORTS if base is None else {name: base + i for i, name in enumerate(PORTS)}
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError) as error:
                sys.exit(f"gateway: port {port} ({name}) cannot be used: {error}. End what listens there, "
                         "or set PORT_BASE to the first of other ports")
    return ports


def make_certificate(directory):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7",
               "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", directory / "tls.key",
               "-out", directory / "tls.crt"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"gateway: openssl made no certificate: {done.stderr}")


def start_sluice(binary, directory):
    """setpriv: should this script be killed outright, the proxy ends too. An own session: Ctrl-C is for this script."""
    command = ["setpriv", "--pdeathsig", "TERM", binary.resolve(), "-c", directory / "bootstrap.yaml",
               "--disable-hot-restart", "--file-flush-interval-msec", "200"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def stop_sluice(child):
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.returncode:
            sys.exit(f"gateway: sluice ended with {child.returncode}, not with 0")


def is_ready(url):
    try:
        return urllib.request.urlopen(url, timeout=1).status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_ready(child, url):
    deadline = time.monotonic() + READY_S
    while not is_ready(url):
        if child.poll() is not None:
            sys.exit(f"gateway: sluice ended with {child.returncode} before it was ready")
        if time.monotonic() > deadline:
            sys.exit(f"gateway: sluice is not ready after {READY_S} s: see {url.replace('ready', 'init_dump')}")
        time.sleep(0.05)


def end(*_):
    raise KeyboardInterrupt


def serve(options, ports, directory, stack):
    variables = {f"{name}_port": port for name, port in ports.items()} | {"directory": directory}
    backends.Counter(ports["counter_v1"], "v1")
    backends.Counter(ports["counter_v2"], "v2")
    backends.Mysql(ports["mysql_server"])
    make_certificate(directory)
    bootstrap = string.Template((HERE / "bootstrap.yaml").read_text()).substitute(variables)
    (directory / "bootstrap.yaml").write_text(bootstrap)
    plane = control_plane.ControlPlane(ports["control_plane"], options.config, variables)
    stack.callback(plane.stop)
    child = start_sluice(options.sluice, directory)
    stack.callback(stop_sluice, child)
    wait_ready(child, f"http://127.0.0.1:{ports['admin']}/ready")
    print(TOUR.format(host=HOST, directory=directory, folder=os.path.relpath(options.config), **ports), flush=True)
    child.wait()
    sys.exit(f"gateway: sluice ended with {child.returncode}")


def main():
    options = arguments()
    if not options.sluice.is_file():
        sys.exit(f"gateway: {options.sluice} is not there: run make first")
    ports = ports_of(options.port_base)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-gateway-")))
        try:
            serve(options, ports, directory, stack)
        except KeyboardInterrupt:
            print("\ngateway: ending", flush=True)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
