"""Text to speech as OpenAI's API has it, by Chatterbox. It listens when its weights are loaded."""

import argparse
import io
import threading

import torchaudio
import uvicorn
from chatterbox.tts import ChatterboxTTS
from fastapi import FastAPI, Response
from pydantic import BaseModel

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="cpu")
parser.add_argument("--voice")
parser.add_argument("--port", type=int, required=True)
options = parser.parse_args()

model = ChatterboxTTS.from_pretrained(device=options.device)
lock = threading.Lock()
app = FastAPI()


class Speech(BaseModel):
    input: str


@app.get("/health")
def health():
    return {"status": "ok", "device": options.device}


@app.post("/v1/audio/speech")
def speech(wanted: Speech):
    with lock:
        sound = model.generate(wanted.input, audio_prompt_path=options.voice)
    wav = io.BytesIO()
    torchaudio.save(wav, sound.cpu(), model.sr, format="wav")
    return Response(wav.getvalue(), media_type="audio/wav")


uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False)
