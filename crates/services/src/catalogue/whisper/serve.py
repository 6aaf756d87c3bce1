"""Speech to text as OpenAI's API has it, by faster-whisper. The model is loaded with the first request."""

import argparse
import tempfile
import threading

import uvicorn
from fastapi import FastAPI, Form, UploadFile
from faster_whisper import WhisperModel

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--port", type=int, required=True)
options = parser.parse_args()

app = FastAPI()
loaded = {}
lock = threading.Lock()


def model():
    with lock:
        if "model" not in loaded:
            loaded["model"] = WhisperModel(options.model, device="cpu", compute_type="int8")
        return loaded["model"]


@app.get("/health")
def health():
    return {"status": "ok", "model": options.model, "loaded": "model" in loaded}


@app.get("/v1/models")
def models():
    return {"object": "list", "data": [{"id": options.model, "object": "model", "owned_by": "wharf"}]}


@app.post("/v1/audio/transcriptions")
def transcribe(file: UploadFile, language: str | None = Form(None)):
    with tempfile.NamedTemporaryFile() as sound:
        sound.write(file.file.read())
        sound.flush()
        segments, info = model().transcribe(sound.name, language=language)
        text = "".join(segment.text for segment in segments).strip()
    return {"text": text, "language": info.language, "duration": info.duration}


uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False)
