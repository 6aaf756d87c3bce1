"""synapse: the plugins that have registered themselves, kept in memory."""

from fastapi import HTTPException
from pydantic import BaseModel, HttpUrl

import hearthlink

app = hearthlink.make("synapse", "Plugin gateway")


class Plugin(BaseModel):
    url: HttpUrl
    summary: str = ""


plugins: dict[str, Plugin] = {}


@app.put("/plugins/{name}")
async def register(name: str, plugin: Plugin) -> Plugin:
    plugins[name] = plugin
    return plugin


@app.get("/plugins")
async def everyone() -> dict[str, Plugin]:
    return plugins


@app.delete("/plugins/{name}", status_code=204)
async def forget(name: str) -> None:
    if plugins.pop(name, None) is None:
        raise HTTPException(404, f"there is no plugin {name}")


if __name__ == "__main__":
    hearthlink.serve(app)
