"""Functions of at most 80 lines and complexity 15; a .c of at most 1,000 lines, a header of 300."""
import subprocess

from source import ROOT, Finding, c_files

FUNCTION_LINES, COMPLEXITY = 80, 15
FILE_LINES = {".c": 1000, ".cc": 1000, ".h": 300}


def check_functions(files):
    if not files:
        return
    out = subprocess.run(["pmccabe", *files], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for row in out.splitlines():
        complexity, _, _, line, lines, place = row.split(None, 5)
        path, name = place.split("(", 1)[0], place.rsplit(": ", 1)[-1]
        if files[path].waived(int(line)):
            continue
        if int(lines) > FUNCTION_LINES:
            yield Finding(path, int(line), f"{name} has {lines} lines, more than {FUNCTION_LINES}")
        if int(complexity) > COMPLEXITY:
            yield Finding(path, int(line), f"{name} has complexity {complexity}, more than {COMPLEXITY}")


def check():
    for file in c_files():
        limit = FILE_LINES[file.path[file.path.rindex("."):]]
        if len(file.lines) > limit and not file.waived_file():
            yield Finding(file.path, limit + 1, f"{len(file.lines)} lines, more than {limit}")
    yield from check_functions({file.path: file for file in c_files()})
