"""file -> log-mel.

audio.py     audio file -> waveform
ffmpeg.py    media file that libsndfile cannot open -> samples
ffmpeg_child.py  the same, in the process that runs FFmpeg
headers.py   audio file -> what its header promises, whether it was cut off, and what follows its samples
logmel.py    waveform -> log-mel
mel.py       front end -> mel filterbank, made by librosa
mend.py      audio file -> the same file as a decoder must read it to hear all of it
mp3.py       MP3 file -> where its frames begin and end; a note of their number
recording.py audio file -> log-mel, block by block
resample.py  waveform -> waveform at another rate
"""
