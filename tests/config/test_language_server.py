"""What an editor shows with `lfdoctor schema config`: asked of yaml-language-server, the server inside VS Code's YAML extension.

Skipped without it: `npm install -g yaml-language-server`, or its path in LFDOCTOR_YAML_LANGUAGE_SERVER.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from doctor.config.schema import schema
from tests.config.test_schema import SOUND, with_mistake

SERVER = os.environ.get("LFDOCTOR_YAML_LANGUAGE_SERVER") or shutil.which("yaml-language-server")
pytestmark = pytest.mark.skipif(SERVER is None, reason="yaml-language-server is not installed (npm install -g yaml-language-server)")


class LanguageServer:
    """A client of the Language Server Protocol on the server's standard input and output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen([str(SERVER), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.count = 0
        settings = {"processId": None, "rootUri": folder.as_uri(), "capabilities": {}}
        self.request("initialize", settings)
        self.send({"method": "initialized", "params": {}})

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the server sends; questions to the client are answered with nothing."""
        assert self.process.stdout is not None
        while header := self.process.stdout.readline():
            length = int(header.partition(b":")[2])
            while self.process.stdout.readline().strip():
                pass
            message = json.loads(self.process.stdout.read(length))
            if "method" in message and "id" in message:
                asked = message.get("params", {}).get("items", [])
                self.send({"id": message["id"], "result": [None for _ in asked]})
            yield message

    def request(self, method: str, params: dict[str, Any]) -> Any:
        self.count += 1
        self.send({"id": self.count, "method": method, "params": params})
        return next(message["result"] for message in self.messages() if message.get("id") == self.count and "result" in message)

    def open(self, name: str, text: str) -> tuple[str, list[dict[str, Any]]]:
        """The file's URI, and what the server marks in it."""
        uri = (self.folder / name).as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self.send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        for message in self.messages():
            if message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == uri:
                return uri, message["params"]["diagnostics"]
        raise AssertionError("the server ended")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    folder = tmp_path_factory.mktemp("editor")
    (folder / "train.schema.json").write_text(json.dumps(schema("0.9.5", "en")), encoding="utf-8")
    client = LanguageServer(folder)
    yield client
    client.process.kill()
    client.process.communicate()


def written(values: dict[str, Any]) -> str:
    return "# yaml-language-server: $schema=./train.schema.json\n" + yaml.safe_dump(values, sort_keys=False)


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_config_has_no_mark(name: str, server: LanguageServer) -> None:
    """Nothing is underlined in it."""
    assert server.open(f"{name}.yaml", written(SOUND[name]))[1] == []


def test_every_mistake_is_marked_on_its_line(server: LanguageServer) -> None:
    """The hundred injected ones: a mark, and on the line of the key for those that have one of their own."""
    for number in range(100):
        dice = random.Random(number)
        sound = SOUND[dice.choice(sorted(SOUND))]
        values = with_mistake(sound, dice)
        lines = written(values).splitlines()
        [key] = [key for key in values if key not in sound or values[key] != sound[key]]
        marks = server.open(f"wrong-{number}.yaml", written(values))[1]
        assert any(lines[mark["range"]["start"]["line"]].startswith(f"{key}:") for mark in marks), (values, marks)


def test_an_option_shows_the_guides_advice(server: LanguageServer) -> None:
    """Where the pointer rests on its name."""
    uri, _ = server.open("hover.yaml", written(SOUND["sft"]))
    line = list(SOUND["sft"]).index("lora_rank") + 1  # the first line names the schema
    shown = server.request("textDocument/hover", {"textDocument": {"uri": uri}, "position": {"line": line, "character": 3}})
    assert "8 to 16 up to 30B" in json.dumps(shown)
