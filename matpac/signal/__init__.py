"""file -> log-mel.

audio.py     audio file -> waveform
headers.py   what a file's header promises, and whether it is there
logmel.py    waveform -> log-mel
mel.py       front end -> mel filterbank, made by librosa
mp3.py       MP3 files that do not say how long they are
resample.py  waveform -> waveform at another rate
"""
