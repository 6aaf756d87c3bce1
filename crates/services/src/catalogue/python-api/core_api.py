"""core: sessions, kept in memory."""

import uuid

from fastapi import Header, HTTPException

import hearthlink

app = hearthlink.make("core", "Sessions")
sessions: dict[str, dict] = {}


@app.post("/sessions", status_code=201)
async def begin(x_client_id: str = Header(default="unknown")) -> dict:
    session = {"id": str(uuid.uuid4()), "client": x_client_id}
    sessions[session["id"]] = session
    return session


@app.get("/sessions")
async def everyone() -> list[dict]:
    return list(sessions.values())


@app.delete("/sessions/{session_id}", status_code=204)
async def end(session_id: str) -> None:
    if sessions.pop(session_id, None) is None:
        raise HTTPException(404, f"there is no session {session_id}")


if __name__ == "__main__":
    hearthlink.serve(app)
