"""Writes a voice for Piper that says nothing: a model of ONNX that answers every text with a quarter of a second of
silence. `python3 silence.py VOICE.onnx` writes VOICE.onnx and VOICE.onnx.json.

Written without any library: messages of protobuf are tags, lengths and bytes.
"""

import json
import sys


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor_of(name, kind, dimensions):
    """ValueInfoProto: a name and the type of a tensor."""
    shape = b"".join(field(1, field(1, size) if isinstance(size, int) else field(2, size)) for size in dimensions)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


FLOAT, INT64 = 1, 7
shape = field(1, 3) + field(2, INT64) + field(8, "shape") + b"".join(field(7, size) for size in (1, 1, 5512))
silence = field(2, "output") + field(1, "shape") + field(4, "ConstantOfShape")
graph = (
    field(1, silence)
    + field(2, "silence")
    + field(5, shape)
    + field(11, tensor_of("input", INT64, [1, "phonemes"]))
    + field(11, tensor_of("input_lengths", INT64, [1]))
    + field(11, tensor_of("scales", FLOAT, [3]))
    + field(12, tensor_of("output", FLOAT, [1, 1, "samples"]))
)
model = field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))

letters = {letter: [number] for number, letter in enumerate("_^$ abcdefghijklmnopqrstuvwxyz.,!?")}
config = {
    "audio": {"sample_rate": 22050, "quality": "none"},
    "espeak": {"voice": "en-us"},
    "phoneme_type": "text",
    "num_symbols": 256,
    "num_speakers": 1,
    "phoneme_id_map": letters,
    "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
}
with open(sys.argv[1], "wb") as file:
    file.write(model)
with open(sys.argv[1] + ".json", "w") as file:
    json.dump(config, file)
