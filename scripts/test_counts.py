"""test_counts.py FOLDER [FAILED_PHASE...]: sums the JUnit files of a test run into one closing line.

A phase that failed without naming a failed test (it did not build, it was killed) counts as one failure.
"""

import sys
import xml.etree.ElementTree as xml
from pathlib import Path


def count(path):
    """(passed, failed, skipped) of one JUnit file, written by ctest or by pytest."""
    passed = failed = skipped = 0
    for case in xml.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main(folder, failed_phases):
    totals = [0, 0, 0]
    for path in sorted(Path(folder).glob("*.xml")):
        counts = count(path)
        totals = [total + n for total, n in zip(totals, counts)]
        print(f"{path.stem:12} {counts[0]} passed, {counts[1]} failed, {counts[2]} skipped")
    for phase in failed_phases:
        print(f"failed: {phase}")
    totals[1] = max(totals[1], len(failed_phases))
    print("{} passed, {} failed, {} skipped".format(*totals))
    return 1 if totals[1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
