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
# The recogniser hears the same file a little differently each time, so each form is held to what is said.
verbose = transcribe(response_format="verbose_json", timestamp_granularities=["word", "segment"])
check("OpenAI Python SDK, verbose_json", words(verbose.text), said)
assert all(word.start <= word.end <= verbose.duration + 0.1 for word in verbose.words)
for parts in ([word.word for word in verbose.words], [segment.text for segment in verbose.segments]):
    assert words(" ".join(parts)) == words(verbose.text)
srt = transcribe(response_format="srt")
assert "-->" in srt and srt.startswith("1\n"), srt[:40]
vtt = transcribe(response_format="vtt")
assert vtt.startswith("WEBVTT"), vtt[:40]
check("OpenAI Python SDK, text", words(transcribe(response_format="text")), said)

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
