"""Reads `cargo tree` and refuses a linked library whose licence or source deny.toml does not allow.

`cargo deny check` does the same and more, but building it takes longer than all other stages together;
this needs nothing beyond Python and reads the same file, so the two cannot disagree on the list.
"""

import re
import sys
import tomllib


def allowed(expression, licences):
    """SPDX: `/` and OR are choices, AND binds tighter; parentheses group."""
    words = re.findall(r"\(|\)|[^\s()/]+(?:\s+WITH\s+[^\s()/]+)?|/", expression)

    def choice(at):
        value, at = both(at)
        while at < len(words) and words[at] in ("OR", "/"):
            other, at = both(at + 1)
            value = value or other
        return value, at

    def both(at):
        value, at = one(at)
        while at < len(words) and words[at] == "AND":
            other, at = one(at + 1)
            value = value and other
        return value, at

    def one(at):
        if words[at] == "(":
            value, at = choice(at + 1)
            return value, at + 1
        return words[at] in licences, at + 1

    return choice(0)[0]


def main():
    with open(sys.argv[1], "rb") as file:
        rules = tomllib.load(file)
    licences = set(rules["licenses"]["allow"])
    banned = {entry["crate"]: entry["reason"] for entry in rules["bans"]["deny"]}
    found = set()
    packages = set()
    for line in filter(None, map(str.strip, sys.stdin)):
        package, _, licence = line.partition("\t")
        # `name v1.2.3`, then in parentheses where it comes from when that is not the registry, or `proc-macro`.
        name, version, *rest = package.split(" ", 2)
        licence = licence.removesuffix(" (*)")
        packages.add((name, version))
        source = "".join(rest).replace("(proc-macro)", "").replace("(*)", "").strip()
        if not licence or not allowed(licence, licences):
            found.add(f"{name} {version}: licence `{licence}` is not in deny.toml")
        if source and not source.startswith("(/"):
            found.add(f"{name} {version}: comes from {source}, not from the registry")
        if name in banned:
            found.add(f"{name} {version}: banned; {banned[name]}")
    print("\n".join(sorted(found)) or f"{len(packages)} libraries, all with an allowed licence from the registry")
    sys.exit(1 if found or not packages else 0)


if __name__ == "__main__":
    main()
