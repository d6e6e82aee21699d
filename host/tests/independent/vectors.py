"""The test vectors of the signature schemes, as requests: headers, body, time, and whether the signature is valid.

`vectors.py json` prints them for other languages; `vectors.py secrets` prints the first secret of each scheme as lines of a
`.env` file.
"""

import json
import sys
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "crates" / "server" / "tests" / "schemes" / "vectors"


def load(scheme):
    return tomllib.loads((FOLDER / f"{scheme}.toml").read_text())


def cases(scheme):
    """The requests of a scheme without duplicate headers: what a library gets for those depends on its framework."""
    vectors = load(scheme)
    good = vectors["good"]
    for case in [{"name": "the good one"}, *vectors["case"]]:
        headers = {name: value for name, value in good["headers"].items() if name not in case.get("without", [])}
        headers |= case.get("headers", {})
        also = case.get("also", {})
        if {name.lower() for name in headers} & {name.lower() for name in also}:
            continue
        official = case.get("official")
        yield {
            "scheme": scheme,
            "name": case["name"],
            "headers": headers | also,
            "body": case.get("body", good["body"]),
            "now": case.get("now", vectors["now"]),
            "secrets": list(vectors["secrets"].values()),
            "right": official == "taken" if official else "refused" not in case,
            "right_for_svix": official == "svix",
        }


if __name__ == "__main__":
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    match sys.argv[1]:
        case "json":
            print(json.dumps([case for name in names for case in cases(name)]))
        case "secrets":
            for name in names:
                for secret in list(load(name)["secrets"].values())[:1]:
                    print(f"{name.upper().replace('-', '_')}_NEW={json.dumps(secret)}")
