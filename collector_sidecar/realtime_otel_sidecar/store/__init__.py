"""What survives a crash: the journal of inputs, checkpoints of streams, the outbox of spans, dead letters."""
