"""A scripted Realtime server and a voice agent that talks to it."""
