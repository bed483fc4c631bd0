"""What became of a conversation, or of a part of it, as a data directory tells it: for whoever misses a trace.

`search` finds the streams that an id may mean, `account` gathers what is known of a stream, `waits` says what an open
one waits for, and `telling` puts it into sentences. Nothing here writes, or asks the sidecar.
"""
