"""Serves a GGUF model over HTTP as OpenAI's API: /health, /v1/models, /v1/completions, /v1/chat/completions.

The server is llama.cpp's own, inside xllamacpp. This file gives it its parameters and waits.
"""

import argparse
import os
import signal
import sys


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--ctx", type=int, required=True, help="tokens of one request")
    parser.add_argument("--parallel", type=int, required=True, help="requests at once")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--gpu-layers", type=int, default=-1)
    parser.add_argument("--vram", type=int, default=0, help="bytes that it takes of each simulated device")
    return parser.parse_args()


def take_simulated(vram):
    """Devices of gpus.toml have no memory of their own: whoever uses them says how much it has."""
    folder = os.environ.get("WHARF_SIMULATED_FOLDER")
    devices = [name for name in os.environ.get("WHARF_SIMULATED_DEVICES", "").split(",") if name]
    if not folder or not devices or not vram:
        return
    with open("/proc/self/stat", encoding="utf-8") as stat:
        started = stat.read().rsplit(")", 1)[1].split()[19]
    taken = ", ".join(f'"{name}": {vram}' for name in devices)
    new = os.path.join(folder, f".{os.getpid()}")
    with open(new, "w", encoding="utf-8") as file:
        file.write(f'{{"start_ticks": {started}, "devices": {{{taken}}}}}')
    os.rename(new, os.path.join(folder, str(os.getpid())))


def main():
    given = parse()
    if not os.path.isfile(given.model):
        sys.exit(f"there is no model {given.model}")
    take_simulated(given.vram)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.model_alias = {given.alias}
    params.port = given.port
    params.n_ctx = given.ctx * given.parallel
    params.n_parallel = given.parallel
    params.n_gpu_layers = given.gpu_layers
    if given.threads:
        params.cpuparams.n_threads = given.threads
    # Prompts that were read before are kept, within reason.
    params.cache_ram_mib = 256
    # No web page may ask it, and it has no pages of its own.
    params.cors_origins = ""
    params.cors_credentials = False
    params.ui = False
    params.endpoint_slots = False
    # Warnings, not every request.
    params.verbosity = 2
    server = xllamacpp.Server(params)
    print(f"{given.alias} answers on {server.listening_address}", flush=True)
    while True:
        signal.pause()


main()
