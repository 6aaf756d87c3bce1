"""vault: values by name, encrypted with AES-GCM at rest, and a record of every access."""

import hashlib
import json
import logging
import os
import sys
import threading
from typing import Annotated, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Body, HTTPException, Request

import hearthlink

secret = os.environ.get("HEARTHLINK_VAULT_KEY")
if not secret:
    sys.exit("HEARTHLINK_VAULT_KEY is not set: the vault cannot encrypt without its key")

cipher = AESGCM(hashlib.sha256(secret.encode()).digest())
folder = hearthlink.data_dir() / "vault"
folder.mkdir(mode=0o700, exist_ok=True)
lock = threading.Lock()
audit = logging.getLogger("uvicorn.error")
app = hearthlink.make("vault", "Encrypted memory")


def place(name: str):
    # A digest as the file's name: a value's name leads nowhere else and is not shown.
    return folder / hashlib.sha256(name.encode()).hexdigest()


def record(request: Request, deed: str, name: str) -> None:
    client = request.headers.get("x-client-id", "unknown")
    audit.info("audit: %s", json.dumps({"deed": deed, "name": name, "client": client}))


@app.put("/memory/{name}", status_code=204)
def store(name: str, value: Annotated[Any, Body()], request: Request) -> None:
    record(request, "store", name)
    nonce = os.urandom(12)
    sealed = nonce + cipher.encrypt(nonce, json.dumps(value).encode(), name.encode())
    with lock:
        draft = place(name).with_suffix(".new")
        draft.write_bytes(sealed)
        draft.replace(place(name))


@app.get("/memory/{name}")
def load(name: str, request: Request) -> Any:
    record(request, "load", name)
    try:
        sealed = place(name).read_bytes()
        return json.loads(cipher.decrypt(sealed[:12], sealed[12:], name.encode()))
    except FileNotFoundError:
        raise HTTPException(404, f"nothing is kept as {name}") from None
    except InvalidTag:
        raise HTTPException(409, f"{name} was kept with another key") from None


@app.delete("/memory/{name}", status_code=204)
def forget(name: str, request: Request) -> None:
    record(request, "forget", name)
    place(name).unlink(missing_ok=True)


if __name__ == "__main__":
    hearthlink.serve(app)
