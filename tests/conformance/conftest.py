import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support.fixtures import *  # noqa: E402,F403


def pytest_configure(config):
    config.addinivalue_line("markers", "smoke: small and broad; also run under sanitizers")
    config.addinivalue_line("markers", "image: needs make image")
