"""Transcribes a file with OpenAI's own Python SDK in every form, and compares the words."""

import io
import sys

import openai

from words import check, truth, words

address, audio, said = sys.argv[1], sys.argv[2], truth(sys.argv[3])
client = openai.OpenAI(api_key="any-on-loopback", base_url=f"http://{address}/v1", max_retries=0, timeout=180)


def transcribe(**asked):
    with open(audio, "rb") as file:
        return client.audio.transcriptions.create(model="whisper-1", file=file, language="en", **asked)


plain = transcribe()
check("OpenAI Python SDK, json", words(plain.text), said)
verbose = transcribe(response_format="verbose_json", timestamp_granularities=["word", "segment"])
assert words(verbose.text) == words(plain.text) and verbose.words and verbose.segments
assert all(word.start <= word.end <= verbose.duration + 0.1 for word in verbose.words)
assert words(" ".join(word.word for word in verbose.words)) == words(plain.text)
srt = transcribe(response_format="srt")
assert "-->" in srt and srt.startswith("1\n"), srt[:40]
vtt = transcribe(response_format="vtt")
assert vtt.startswith("WEBVTT"), vtt[:40]
assert words(transcribe(response_format="text")) == words(plain.text)

for name, file, expected in [
    ("no audio", ("a.wav", io.BytesIO(b"this is no audio, however it is named")), openai.BadRequestError),
    ("empty", ("a.wav", io.BytesIO(b"")), openai.BadRequestError),
]:
    try:
        client.audio.transcriptions.create(model="whisper-1", file=file)
    except expected as error:
        assert error.param == "file", error
    else:
        sys.exit(f"{name}: was taken")
print("OpenAI Python SDK: every form and its errors")
