"""docstrings.py OUT: writes the documentation inside the installed Python packages to one text file of up to 20 MB.

A text that every machine with the virtual environment has, for the demo where no better one can be fetched.
"""

import argparse
import inspect
import re
import sysconfig
from pathlib import Path

LIMIT = 20_000_000
LONG_STRING = re.compile(r'"""(.{80,20000}?)"""', re.DOTALL)


def main(target):
    partial = Path(f"{target}.partial")
    seen = set()
    size = 0
    with partial.open("w", encoding="utf-8") as out:
        for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
            for path in sorted(Path(folder).rglob("*.py")):
                for text in LONG_STRING.findall(path.read_text(encoding="utf-8", errors="replace")):
                    if size < LIMIT and text not in seen:
                        seen.add(text)
                        size += out.write(inspect.cleandoc(text) + "\n\n")
    partial.rename(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    main(parser.parse_args().out)
