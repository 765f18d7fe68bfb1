"""Streams a WAV file with Deepgram's own Python SDK, raw and with its header, and compares the words."""

import subprocess
import sys
import threading
import wave

from deepgram import DeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment

from words import check, truth, words

address, audio, said = sys.argv[1], sys.argv[2], truth(sys.argv[3])
# A tenth of a second of the recording.
PIECE = 3200

environment = DeepgramClientEnvironment(
    base=f"http://{address}", production=f"ws://{address}", agent=f"ws://{address}", agent_rest=f"http://{address}"
)
client = DeepgramClient(api_key="any-on-loopback", environment=environment)


def stream(name, pieces, finalize=False, **asked):
    """Sends the pieces as fast as they are taken, and returns what came back."""
    messages, errors = [], []
    with client.listen.v1.connect(model="nova-3", **asked) as connection:
        connection.on(EventType.MESSAGE, messages.append)
        connection.on(EventType.ERROR, errors.append)
        listener = threading.Thread(target=connection.start_listening, daemon=True)
        listener.start()
        for piece in pieces:
            connection.send_media(piece)
        if finalize:
            connection.send_finalize()
        connection.send_keep_alive()
        connection.send_close_stream()
        listener.join(180)
        assert not listener.is_alive(), f"{name}: the stream does not end"
    assert not errors, f"{name}: {errors}"
    return messages


def results(messages, interim=False):
    found, until = [], 0.0
    for result in (message for message in messages if message.type == "Results"):
        assert result.is_final or interim, "a result that may still change was not asked for"
        assert result.is_final or not (result.speech_final or result.from_finalize), result
        if not result.is_final:
            assert abs(result.start - until) < 0.6, f"it begins at {result.start}, not at {until}"
            continue
        found.append(result)
        assert abs(result.start - until) < 0.6, f"a gap: {result.start} after {until}"
        until = max(until, result.start + result.duration)
        for word in result.channel.alternatives[0].words:
            assert result.start - 0.01 <= word.start <= word.end <= result.start + result.duration + 0.01, word
    return found


def heard(found):
    return words(" ".join(result.channel.alternatives[0].transcript for result in found))


with wave.open(audio) as file:
    # A second and a half of silence behind it, so that its last utterance ends.
    rate, pcm = file.getframerate(), file.readframes(file.getnframes()) + bytes(3 * file.getframerate())
whole = open(audio, "rb").read()
seconds = len(pcm) / 2 / rate
cut = lambda data: [data[at : at + PIECE] for at in range(0, len(data), PIECE)]

messages = stream(
    "linear16", cut(pcm), finalize=True, encoding="linear16", sample_rate=rate, smart_format=True,
    interim_results=True, utterance_end_ms=1000, vad_events=True, keyterm=["Auricle", "Dr. Okonkwo"],
)
found = results(messages, interim=True)
print(f"Deepgram Python SDK, linear16: {sum(m.type == 'Results' and not m.is_final for m in messages)} interim results")
check("Deepgram Python SDK, linear16", heard(found), said)
assert any(result.from_finalize for result in found), "no result says from_finalize"
kinds = [message.type for message in messages]
assert "SpeechStarted" in kinds and "UtteranceEnd" in kinds, set(kinds)
last = messages[-1]
assert last.type == "Metadata" and abs(last.duration - seconds) < 0.1, last
assert all(word.punctuated_word for result in found for word in result.channel.alternatives[0].words)

found = results(stream("WAV", cut(whole)))
check("Deepgram Python SDK, WAV header", heard(found), said)

# As a browser's MediaRecorder sends it.
webm = subprocess.run(
    ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", audio, "-af", "apad=pad_dur=1.5", "-c:a", "libopus", "-b:a", "32k",
     "-f", "webm", "-live", "1", "-cluster_time_limit", "250", "pipe:1"],
    stdout=subprocess.PIPE, check=True,
).stdout
found = results(stream("WebM", [webm[at : at + 701] for at in range(0, len(webm), 701)]))
check("Deepgram Python SDK, WebM", heard(found), said)

# The voice on the left alone; the right is silent.
stereo = b"".join(pcm[at : at + 2] + b"\0\0" for at in range(0, len(pcm), 2))
messages = stream("stereo", cut(stereo), encoding="linear16", sample_rate=rate, channels=2, multichannel=True)
left = [m for m in messages if m.type == "Results" and m.channel_index[0] == 0]
right = [m for m in messages if m.type == "Results" and m.channel_index[0] == 1]
check("Deepgram Python SDK, two channels", heard(left), said)
assert not heard(right), heard(right)
