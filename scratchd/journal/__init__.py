r"""The journal: what an answered line is written to before its answer leaves; one per flavor; knows no HTTP or backend.

A journal is a directory of segment files. A segment is a head and then frames; a frame is what one pass of the gate
took for the flavor and a date, with the lines exactly as a log file gets them. Constraints, in the order in which they
won: an answer costs one write(2) shared by its pass; whatever was torn is found; a frame goes to a log file as it
stands, without being taken apart; a reader needs no index.

Directory of one instance::

    {journal.directory}/{instance or "_"}/lock            held with flock(2) by the owner
    .../{flavor}/FIRST-ATTEMPT-EPOCH.segment              FIRST 20 digits, ATTEMPT 3 digits, EPOCH a UUID
    .../{flavor}/{backend}.cursor.{a,b}                   where a backend stands (`scratchd.journal.cursor`)
    .../{flavor}/{backend}.set-aside-FIRST.jsonl          lines refused for good (`scratchd.journal.set_aside`)
    .../{flavor}/gaps.jsonl                               what the backends will never get (`scratchd.journal.gaps`)
    .../{flavor}/epochs.jsonl                             which epoch a sequence is of (`scratchd.journal.epochs`)
    .../{flavor}/{backend}.places.jsonl                   where in which file it stands (`scratchd.journal.places`)

Segment head, 40 bytes, integers little-endian:

====== ====== =========================================================
offset size   field
====== ====== =========================================================
0      7      magic ``SCRATCH``
7      1      version, 1
8      8      first sequence
16     16     epoch, the bytes of the UUID
32     4      reserved, 0
36     4      CRC-32 (zlib) of bytes 0-35
====== ====== =========================================================

Frame, a head of 40 bytes and the payload:

====== ====== =========================================================
offset size   field
====== ====== =========================================================
0      3      magic ``FR\xff`` (0xFF occurs in no UTF-8, so in no payload)
3      1      version, 1
4      4      length of the payload in bytes
8      4      CRC-32 (zlib) of bytes 0-7, then 12-39, then the payload
12     4      count of lines
16     8      first sequence
24     8      time of arrival, ms since the Unix epoch
32     4      local date in the flavor's zone, decimal YYYYMMDD
36     4      reserved, 0
40     length the lines, each ended by a newline
====== ====== =========================================================

A segment's head keeps its shape in every version: an earlier scratchd recognises what a later one wrote and refuses to
start on it, where it would otherwise take it for damaged and cut it.

Sequences count lines from 0 and never go back, over restarts too. A start begins a new segment with a new epoch, so
`EPOCH/SEQUENCE` names one line for ever. Where a failed fdatasync made frames go again into a newer segment, that one
wins: a segment counts only up to the next one's first sequence (`ATTEMPT` tells two of the same first sequence apart).
"""
