"""What the four services share: the health answer, the data folder, and how they are run."""

import argparse
import os
import pathlib
from datetime import datetime, timezone

import uvicorn
from fastapi import FastAPI

VERSION = "1.0.0"


def make(name: str, about: str) -> FastAPI:
    app = FastAPI(title=f"{name}-api", description=about, version=VERSION)

    @app.get("/health")
    async def health() -> dict:
        return {
            "status": "healthy",
            "service": f"{name}-api",
            "version": VERSION,
            "timestamp": datetime.now(timezone.utc).isoformat(),
        }

    return app


def data_dir() -> pathlib.Path:
    path = pathlib.Path(os.environ.get("HEARTHLINK_DATA_DIR", "hearthlink_data"))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def serve(app: FastAPI) -> None:
    parser = argparse.ArgumentParser(description=app.description)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    uvicorn.run(app, host=args.host, port=args.port, access_log=False, log_level="info")
