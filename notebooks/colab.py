"""What each notebook runs in Colab before its imports: install lensdiff, leave Colab's torch alone.

The cell has cloned the repository, at the notebook's own version, to where this file lies.
"""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("torch", "torchvision", "torchaudio", "numpy", "ipykernel", "jax", "tensorflow")


def installed() -> list[str]:
    """What must stay as it is, as constraints for pip."""
    found = []
    for name in KEPT:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Install, make the package importable in this session, and go where the notebooks lie."""
    constraints = ROOT / "colab-constraints.txt"
    constraints.write_text("\n".join(installed()) + "\n", encoding="utf-8")
    line = [sys.executable, "-m", "pip", "install", "-q", "-c", str(constraints), "-e", str(ROOT)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-2000:] + done.stderr[-2000:])
        raise SystemExit("lensdiff could not be installed: see above. Run the cell again.")
    if str(ROOT) not in sys.path:  # an editable install is seen by new sessions only
        sys.path.insert(0, str(ROOT))
    os.chdir(ROOT / "notebooks")
    print(f"lensdiff is installed; notebooks and data lie in {ROOT}.")


main()
