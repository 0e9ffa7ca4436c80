"""Small media files of many kinds, made by PyAV's own encoders."""

from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

KINDS = {
    "m4a": ("ipod", "aac", 44_100),
    "mp4": ("mp4", "aac", 44_100),
    "mov": ("mov", "alac", 44_100),
    "3gp": ("3gp", "libopencore_amrnb", 8_000),
    "amr": ("amr", "libopencore_amrnb", 8_000),
    "aac": ("adts", "aac", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "aac", 44_100),
    "mka": ("matroska", "libopus", 48_000),
    "wma": ("asf", "wmav2", 44_100),
    "ac3": ("ac3", "ac3", 48_000),
    "eac3": ("eac3", "eac3", 48_000),
    "avi": ("avi", "mp2", 44_100),
    "flv": ("flv", "aac", 44_100),
    "ts": ("mpegts", "aac", 44_100),
    "mpg": ("mpeg", "mp2", 44_100),
    "wv": ("wv", "wavpack", 44_100),
    "tta": ("tta", "tta", 44_100),
    "caf": ("caf", "alac", 44_100),
}
"""Suffix -> muxer, encoder and sample rate."""


def tone(rate_hz, duration_s, num_channels=2, seed=0):
    """A tone in noise, `[time, channel]`."""
    times = np.arange(int(rate_hz * duration_s)) / rate_hz
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, (len(times), num_channels))
    return (0.3 * np.sin(2 * np.pi * 440 * times)[:, None] + noise).astype(np.float32)


def media(kind, samples=None, *, duration_s=1.0, has_video=False, has_audio=True, **options):
    """The bytes of a file. `options` are the muxer's."""
    muxer, codec, rate_hz = KINDS[kind]
    mono_only = codec == "libopencore_amrnb"
    if samples is None:
        samples = tone(rate_hz, duration_s, 1 if mono_only else 2)
    with TemporaryDirectory() as folder:
        path = Path(folder, "media")
        write(path, muxer, codec, rate_hz, samples, duration_s if has_video else 0, has_audio, options)
        return path.read_bytes()


def write(path, muxer, codec, rate_hz, samples, video_s, has_audio, options):
    with av.open(str(path), "w", format=muxer, options=options) as container:
        streams = []
        if video_s:
            video = container.add_stream("mjpeg", rate=10)
            video.width = video.height = 32
            video.pix_fmt = "yuvj420p"
            streams.append(video)
        if has_audio:
            audio = container.add_stream(codec, rate=rate_hz)
            audio.layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
            if codec == "wmav2":
                audio.bit_rate = 128_000
            streams.append(audio)
        for stream in streams:
            frames = pictures(video_s) if stream.type == "video" else [sound(samples, rate_hz)]
            for frame in [*frames, None]:
                container.mux(stream.encode(frame))


def pictures(duration_s):
    for number in range(int(10 * duration_s)):
        yield av.VideoFrame.from_ndarray(np.full((32, 32, 3), 5 * number % 255, np.uint8))


def sound(samples, rate_hz):
    values = np.ascontiguousarray((samples * 32_767).astype(np.int16).reshape(1, -1))
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
    frame = av.AudioFrame.from_ndarray(values, format="s16", layout=layout)
    frame.rate, frame.pts = rate_hz, 0
    return frame
