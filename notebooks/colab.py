"""What each notebook runs in Colab before its imports: install lensdiff, change nothing else.

The cell has cloned the repository, at the notebook's own version, to where this file lies. What is
installed stays as it is: a session that has loaded a package can't take another version of it.
"""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_HERE = ("jupyterlab", "papermill")  # Colab is the one, and the other runs pages elsewhere


def installed() -> list[str]:
    """What is there, as constraints for pip: of several versions the one that Python imports."""
    found: dict[str, str] = {}
    for one in distributions():
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"] or "").lower()
        if name and re.fullmatch(r"\d+(\.\d+)*([a-z+.\d-]*)", one.version):
            found.setdefault(name, one.version)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def wanted() -> list[str]:
    """What lensdiff needs, as pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [text for text in project["dependencies"] if not text.startswith(NOT_HERE)]


def main() -> None:
    """Install, make the package importable in this session, and go where the notebooks lie."""
    constraints = ROOT / "colab-constraints.txt"
    constraints.write_text("\n".join(installed()) + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    lines = [[*pip, "-c", str(constraints), *wanted()], [*pip, "--no-deps", "-e", str(ROOT)]]
    for line in lines:
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout[-2000:] + done.stderr[-2000:])
            raise RuntimeError("lensdiff could not be installed: see above. Run the cell again.")
    if str(ROOT) not in sys.path:  # an editable install is seen by new sessions only
        sys.path.insert(0, str(ROOT))
    os.chdir(ROOT / "notebooks")
    print(f"lensdiff is installed; notebooks and data lie in {ROOT}.")


main()
