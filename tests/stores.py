"""Stores of releases, kept so that later ones are held to reading them: ``python -m tests.stores`` writes the present.

A folder for each version of the store. What was released is never written again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import sqlite3
import tempfile
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from realtime_otel import contract
from realtime_otel.contract import Fact
from realtime_otel_sidecar import journal
from realtime_otel_sidecar.otlp.refusal import letter
from realtime_otel_sidecar.stitch.stitcher import RULES_VERSION
from realtime_otel_sidecar.store.folder import NAME
from realtime_otel_sidecar.store.schema import newest_version
from tests import conversations as talk
from tests.conversations import SECOND, STARTED, encoded, fact, later, request, stream
from tests.sidecar import record
from tests.unit.sidecar.rig import Rig, eventually, open_streams, outbox

FOLDER: Final = Path(__file__).parent / "data" / "stores"
JOURNAL_ROWS: Final = 14
"""So that some of the streams are in checkpoints, and others in the journal alone."""
MAX_STREAMS: Final = 3
"""Of one service: as many as are open on chosen ids."""
RESUME_WAIT: Final = 2.0
"""Seconds: short enough to be waited for, long enough for the rest to come before the wall clock ends it."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A store as a kill has left it, and what must come of it."""

    rules: str
    """Version of the rules that made it."""
    rest: list[bytes]
    """Requests that come then."""
    open: list[str]
    """Keys of the streams that are open."""
    letters: list[list[str]]
    """Reason and stream of each dead letter."""
    waiting: dict[str, str]
    """Trace id and span id of each span in the outbox, with a hash of its bytes."""
    settling: dict[str, str]
    """Those that the rest settles."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        rest = gzip.decompress((folder / "rest.txt.gz").read_bytes())
        expected = json.loads((folder / "expected.json").read_text("utf-8"))
        return cls(rest=[b64decode(line) for line in rest.splitlines()], **expected)

    def write(self, folder: Path) -> None:
        lines = b"".join(b64encode(each) + b"\n" for each in self.rest)
        (folder / "rest.txt.gz").write_bytes(gzip.compress(lines, mtime=0))
        expected = {name: value for name, value in asdict(self).items() if name != "rest"}
        (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", "utf-8")


def hashes(folder: Path) -> dict[str, str]:
    """The spans in a store's outbox."""
    return {
        f"{trace_id.hex()}-{span_id.hex()}": hashlib.sha256(data).hexdigest()
        for (trace_id, span_id), data in outbox(folder)
    }


def unpack(version: Path, folder: Path) -> Path:
    """The store of a version, in a folder where it can be used; that folder."""
    folder.mkdir()
    (folder / NAME).write_bytes(gzip.decompress((version / "store.db.gz").read_bytes()))
    return folder


# --- What is in it --------------------------------------------------------------------------------------------------


def cut_conversations() -> tuple[list[bytes], list[bytes]]:
    """One conversation again and again, each time cut one step later: what comes before the cut, and what after."""
    before, after = [], []
    steps = talk.weather_call()
    for cut in range(1, len(steps), 3):
        recording = record(steps, f"cut-{cut}")
        before.append(recording.request(0, cut))
        after.append(recording.request(cut))
    return before, after


def with_a_gap() -> tuple[list[bytes], list[bytes]]:
    """A stream with a record that never comes, and one that lacks one before its close."""
    inside, at_the_end = record(talk.weather_call(), "gap-inside"), record(talk.weather_call(), "gap-at-the-end")
    return (
        [inside.request(0, 4), inside.request(5, 20), at_the_end.request(0, 20), at_the_end.request(21)],
        [inside.request(20), at_the_end.request(20, 21)],
    )


def connection(call: str, emitter: str, opens: float) -> bytes:
    """A whole connection of a chosen stream id, that opens so many seconds after the first."""
    of = stream(call, chosen=True, emitter_id=emitter, started=STARTED + round(opens * SECOND))
    return request(encoded([*talk.opened(), *talk.speech(f"item-{emitter}"), *later(5, talk.closed())], of))


def crowd() -> bytes:
    """One stream more of a service than it may have."""
    names = [f"crowded-{number}" for number in range(MAX_STREAMS + 1)]
    return b"".join(record(talk.weather_call(), name, service="crowded").request(0, 12) for name in names)


def that_become_letters() -> list[bytes]:
    """A record that breaks the contract, and one that comes after its stream has closed."""
    broken = record(talk.closed(), "broken").request()
    return [
        broken.replace(contract.CONTRACT.encode(), b"x" * len(contract.CONTRACT)),
        record([*talk.opened(), *talk.closed(), fact(Fact.HEARTBEAT)], "late").request(),
    ]


def build(folder: Path) -> tuple[Path, Stored]:
    """Make a store, and find out what comes of it in a sidecar that nothing happens to."""
    before, rest = cut_conversations()
    held, filling = with_a_gap()
    journal.JOURNAL_ROWS = JOURNAL_ROWS
    with Rig(folder / "alive", resume_wait=RESUME_WAIT, max_streams_per_service=MAX_STREAMS) as rig:
        rig.take(record(talk.weather_call(), "ended").request(), *that_become_letters())
        rig.engine.acknowledge(1, [letter(rig.rows("SELECT data FROM outbox")[0][0], "INVALID_ARGUMENT: a test")])
        rig.take(*before, connection("CA-ticked", "one", 0))
        eventually(lambda: bool(rig.rows("SELECT * FROM journal WHERE kind = 'tick'")))
        rig.take(crowd(), *held, connection("CA-reused", "one", 0), connection("CA-resumed", "one", 0))
        store = rig.crash(folder / "store")
        waiting, still_open = hashes(rig.folder), sorted(open_streams(rig))
        letters = [list(each) for each in rig.database.dead_letters()]
        rest += [*filling, connection("CA-reused", "two", 90), connection("CA-resumed", "two", 7)]
        rig.take(*rest)
        settling = {key: data for key, data in hashes(rig.folder).items() if key not in waiting}
    return store, Stored(
        rules=RULES_VERSION, rest=rest, open=still_open, letters=letters, waiting=waiting, settling=settling
    )


def main() -> None:
    version = FOLDER / str(newest_version())
    with tempfile.TemporaryDirectory() as temporary:
        store, made = build(Path(temporary))
        connection = sqlite3.connect(store / NAME)
        connection.execute("VACUUM")  # and with it, as the connection ends, the log becomes part of the file
        connection.close()
        shutil.rmtree(version, ignore_errors=True)
        version.mkdir(parents=True)
        (version / "store.db.gz").write_bytes(gzip.compress((store / NAME).read_bytes(), mtime=0))
    made.write(version)
    print(f"{version}: {len(made.open)} open streams, {len(made.waiting)} spans waiting, {len(made.settling)} to come")


if __name__ == "__main__":
    main()
