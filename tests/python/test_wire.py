"""docs/wire.md: its example is the message that the unit tests make, and its table of offsets reads that message."""

import re
import struct

SIZES = {"u16": ("<H", 2), "u32": ("<I", 4), "u64": ("<Q", 8)}
EXPECTED = {
    "magic": 0x56505453, "version": 1, "kind": 1, "step": 6, "bucket": 1, "shard": 2, "first parameter": 4096, "bits": 70,
    "ranks": 4, "sender": 3, "flags": 0, "votes counted": 0,
}  # fmt: skip


def test_the_documented_message_is_the_real_one(repository):
    page = (repository / "docs" / "wire.md").read_text()
    shown = bytes.fromhex("".join(re.findall(r"^    [0-9a-f]{4}  ((?:[0-9a-f]{2} ?){16})$", page, re.M)))
    source = (repository / "tests" / "comm" / "wire_test.cc").read_text()
    golden = bytes.fromhex("".join(re.findall(r'^    "((?:[0-9a-f]{2} ){16})"', source, re.M)))
    assert len(shown) == 80 and shown == golden

    fields = re.findall(r"^\| (\d+) \| (u16|u32|u64) \| ([a-z ]+?) \|", page.split("## Payloads")[0], re.M)
    assert [name for _, _, name in fields] == [*EXPECTED, "hash"]
    end = 0
    for offset, kind, name in fields:
        code, size = SIZES[kind]
        assert int(offset) == end, "fields follow each other without a gap"
        end += size
        if name in EXPECTED:
            assert struct.unpack_from(code, shown, int(offset))[0] == EXPECTED[name], name
    assert end == 64
