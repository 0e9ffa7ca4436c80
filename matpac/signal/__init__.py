"""file -> log-mel.

audio.py     audio file -> waveform
headers.py   audio file -> the length that its header promises, and whether it was cut off
logmel.py    waveform -> log-mel
mel.py       front end -> mel filterbank, made by librosa
mp3.py       MP3 file -> whether it notes its length; the missing note
recording.py audio file -> log-mel, block by block
resample.py  waveform -> waveform at another rate
"""
