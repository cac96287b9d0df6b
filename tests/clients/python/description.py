"""Mattermost's OpenAPI description of its API, and what an answer breaks of it."""

import os
import re
from pathlib import Path

ID = re.compile(r"[a-z0-9]{26}")


class Description:
    """The description in a file, read once."""

    def __init__(self, path):
        import jsonschema
        import yaml

        whole = yaml.load(Path(path).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.whole = without_nullable(whole)
        self.validator = jsonschema.Draft202012Validator
        self.operations = {without_names(template): operations for template, operations in self.whole["paths"].items()}
        self.validators = {}

    def operation(self, method, template):
        """What is said about a method of a path like `/api/v4/users/{id}/teams`; `me` also stands for an id."""
        plain = without_names(template)
        for candidate in (plain, re.sub(r"/me(?=/|$)", "/{}", plain)):
            operation = self.operations.get(candidate, {}).get(method.lower())
            if operation:
                return operation
        return None

    def problems(self, method, template, status, body):
        """What an answer breaks: places and rules, without the values. Empty where the description has nothing to say."""
        operation = self.operation(method, template)
        if operation is None:
            return []
        answers, found = operation["responses"], set()
        answer = answers.get(str(status)) or answers.get("default")
        if answer is None:
            found.add(f"status {status} is not described")
            # What it says is held against the success or the refusal that is described.
            similar = [other for other in answers if (other < "300") == (status < 300)]
            if not similar:
                return sorted(found)
            answer = answers[similar[0]]
        if "$ref" in answer:
            answer = self.whole["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
        schema = answer.get("content", {}).get("application/json", {}).get("schema")
        if schema is None or body is None:
            return sorted(found)
        key = method, template, status
        if key not in self.validators:
            self.validators[key] = self.validator({"components": self.whole["components"], "allOf": [schema]})
        for error in self.validators[key].iter_errors(body):
            place = "".join("[]" if isinstance(part, int) else "{}" if ID.fullmatch(part) else f".{part}"
                            for part in error.absolute_path)
            found.add(f"${place}: {error.validator}")
        return sorted(found)


def at_hand():
    """The description that MATTERMOST_OPENAPI names, or None."""
    path = os.environ.get("MATTERMOST_OPENAPI")
    return Description(path) if path and Path(path).exists() else None


def without_names(template):
    return re.sub(r"\{[^}]*\}", "{}", template)


def without_nullable(schema):
    """OpenAPI 3.0 says `nullable`; JSON Schema says it with a type."""
    if isinstance(schema, list):
        return [without_nullable(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: without_nullable(inner) for key, inner in schema.items()}
    if schema.pop("nullable", False) is True and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    return schema
