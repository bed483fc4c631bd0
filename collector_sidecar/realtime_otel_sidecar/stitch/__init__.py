"""The core: records in, spans out. No clock, no sockets, no protobuf, no SDK.

`stitcher.Stitcher` is what a caller uses; `events` says what each event of the protocol means, `session` what follows.
"""
