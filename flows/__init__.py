"""How the data stages run under Prefect. What they do is in matpac/."""

import os

# Here, because Prefect sends its first message when it is imported. Whoever wants to send them sets it to 0.
os.environ.setdefault("DO_NOT_TRACK", "1")
