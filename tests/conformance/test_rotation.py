"""SLUICE_ROTATION_SECONDS (3600) of certificates that change every second below mutual TLS traffic: no request fails, no connection
is dropped, and memory stays where it was."""

import os

from support import rotation

SECONDS = int(os.environ.get("SLUICE_ROTATION_SECONDS", "3600"))
WARM_SECONDS = 120  # less does not tell whether memory has settled


def test_certificates_rotate_every_second(sluice, tmp_path):
    rotation.run(sluice, tmp_path, SECONDS, check_memory=SECONDS >= WARM_SECONDS)
