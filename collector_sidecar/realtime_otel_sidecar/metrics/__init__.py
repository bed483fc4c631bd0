"""Settled spans into metrics: a pure core, as `stitch` is, without clock and protobuf. Only the price table is a file.

`instruments` is the table of what is measured, `measure` says what one span adds, `sums` adds it up.
"""
