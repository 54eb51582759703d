"""The chart's values documented from one source: the comments of values.yaml.

`python -m tools.chart_values` writes the table of charts/embedding-operator/README.md and the descriptions in
values.schema.json; with `--verify` it only compares and fails when one of them is stale. A key without a comment, or
one that the schema does not know, is an error.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent.parent / "charts" / "embedding-operator"
BEGIN = "<!-- begin: values, written from values.yaml by `make generate` -->"
END = "<!-- end: values -->"


class ValuesError(Exception):
    """values.yaml, values.schema.json and README.md do not fit together; the message says where and what to do."""


@dataclass(frozen=True)
class Value:
    """One key of values.yaml: its dotted path, the comment above it (may be empty) and its default.

    A `group` only holds other keys.
    """

    path: str
    description: str
    default: Any
    group: bool


def read(source: str) -> list[Value]:
    """All keys of `source`, the text of a values.yaml, in their order. Entries of lists are part of a default."""
    root = yaml.compose(source)
    if not isinstance(root, yaml.MappingNode):
        raise ValuesError("values.yaml must be a mapping")
    return list(_walk(root, "", source.splitlines()))


def _walk(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        description = _comment_above(key.start_mark.line, key.start_mark.column, lines)
        # A mapping whose keys are explained is a group; one without a comment inside (resources) is one default.
        group = isinstance(value, yaml.MappingNode) and _explains_keys(value, lines)
        yield Value(path, description, yaml.safe_load(yaml.serialize(value)), group)
        if group:
            yield from _walk(value, f"{path}.", lines)


def _explains_keys(node: yaml.MappingNode, lines: list[str]) -> bool:
    return any(
        _comment_above(key.start_mark.line, key.start_mark.column, lines)
        or (isinstance(value, yaml.MappingNode) and _explains_keys(value, lines))
        for key, value in node.value
    )


def _comment_above(line: int, column: int, lines: list[str]) -> str:
    words: list[str] = []
    mark = " " * column + "#"
    while line > 0 and lines[line - 1].startswith(mark):
        line -= 1
        words.insert(0, lines[line].strip().lstrip("#").strip())
    return " ".join(words)


def table(values: list[Value]) -> str:
    """A Markdown table of every key that is no group."""
    rows = ["| value | default | what it does |", "| --- | --- | --- |"]
    for value in values:
        if not value.group:
            default = json.dumps(value.default, separators=(", ", ": ")).replace("|", "\\|")
            rows.append(f"| `{value.path}` | `{default}` | {value.description.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def describe(schema: dict[str, Any], values: list[Value]) -> dict[str, Any]:
    """`schema` with the description of each of `values`.

    Raises ValuesError for a key that the schema does not know, and for one that nobody explained.
    """
    described: dict[str, Any] = json.loads(json.dumps(schema))
    for value in values:
        node = described
        for part in value.path.split("."):
            try:
                node = node["properties"][part]
            except KeyError:
                raise ValuesError(
                    f"{value.path} is in values.yaml and not in values.schema.json: add it there"
                ) from None
        if value.description:
            node["description"] = value.description
        elif not value.group:
            raise ValuesError(f"{value.path} has no comment in values.yaml: write one above it")
    return described


def readme_with(readme: str, values: list[Value]) -> str:
    """`readme` with the table between its two marks renewed. Raises ValuesError when the marks are missing."""
    try:
        before, rest = readme.split(BEGIN)
        _, after = rest.split(END)
    except ValueError:
        raise ValuesError(f"README.md of the chart must hold these two lines once: {BEGIN} and {END}") from None
    return f"{before}{BEGIN}\n{table(values)}\n{END}{after}"


def wanted(chart: Path = CHART) -> dict[Path, str]:
    """What the two documented files should hold, by path."""
    values = read((chart / "values.yaml").read_text())
    schema, readme = chart / "values.schema.json", chart / "README.md"
    described = describe(json.loads(schema.read_text()), values)
    return {
        schema: json.dumps(described, indent=2, ensure_ascii=False) + "\n",
        readme: readme_with(readme.read_text(), values),
    }


def main() -> int:
    """The command line. Returns 1 when --verify finds a stale file or the files do not fit together."""
    parser = argparse.ArgumentParser(prog="python -m tools.chart_values", description=__doc__)
    parser.add_argument("--verify", action="store_true", help="write nothing; fail when a file is stale")
    verify = parser.parse_args().verify
    try:
        stale = {path: text for path, text in wanted().items() if path.read_text() != text}
    except ValuesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path, text in stale.items():
        if verify:
            print(
                f"error: {path.relative_to(CHART.parent.parent)} is stale: run `make generate` and commit it",
                file=sys.stderr,
            )
        else:
            path.write_text(text)
            print(f"chart: {path.relative_to(CHART.parent.parent)}")
    return 1 if verify and stale else 0


if __name__ == "__main__":
    sys.exit(main())
