"""alden: an assistant that remembers. In the vault while that answers, else in memory only."""

import json
import logging
import os
import urllib.error
import urllib.parse
import urllib.request

from pydantic import BaseModel

import hearthlink

VAULT = os.environ.get("HEARTHLINK_VAULT_URL", "http://127.0.0.1:8001").rstrip("/")
# The vault is on this machine: no proxy of the environment may come between.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
app = hearthlink.make("alden", "Assistant")
log = logging.getLogger("uvicorn.error")
own_memory: dict[str, list[str]] = {}


class Note(BaseModel):
    text: str


def ask_vault(method: str, person: str, body: list | None = None):
    url = f"{VAULT}/memory/{urllib.parse.quote('alden.' + person, safe='')}"
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "x-client-id": "alden"}
    request = urllib.request.Request(url, data, headers, method=method)
    with opener.open(request, timeout=2) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def recall(person: str) -> tuple[list[str], str]:
    try:
        return ask_vault("GET", person), "vault"
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return own_memory.get(person, []), "vault"
        log.warning("the vault refused: %s", error)
    except OSError as error:
        log.warning("the vault does not answer: %s", error)
    return own_memory.get(person, []), "memory-only"


@app.get("/people/{person}/notes")
def notes(person: str) -> dict:
    known, mode = recall(person)
    return {"notes": known, "mode": mode}


@app.post("/people/{person}/notes", status_code=201)
def remember(person: str, note: Note) -> dict:
    known, mode = recall(person)
    known = [*known, note.text]
    own_memory[person] = known
    if mode == "vault":
        try:
            ask_vault("PUT", person, known)
        except OSError as error:
            log.warning("the vault did not keep it: %s", error)
            mode = "memory-only"
    return {"notes": known, "mode": mode}


if __name__ == "__main__":
    hearthlink.serve(app)
