"""The figures of the process, and what instance it is."""

from __future__ import annotations

from scratchd.figures.figure import Figure, Group

_GC = "Much garbage is made, or much is kept: report it"

PROCESS = Group(
    "Process",
    "Since the start of the process. `process_*` and `python_*` are the Prometheus client library's own.",
    (
        Figure(
            "gauge",
            "bytes",
            "Resident memory",
            "It does not depend on the backlog: growing over days is a defect, report it",
            ("runtime.rss_bytes",),
            "process_resident_memory_bytes",
        ),
        Figure("gauge", "bytes", "Virtual memory", "Of no consequence", (), "process_virtual_memory_bytes"),
        Figure(
            "counter",
            "seconds",
            "Processor time, of the system's too",
            "Near one second a second the instance is at its limit: start another one (`scratchd@2`)",
            ("runtime.cpu_s",),
            "process_cpu_seconds_total",
        ),
        Figure(
            "gauge",
            "descriptors",
            "Open file descriptors",
            "Near the most that are allowed connections wait: raise `LimitNOFILE=`",
            ("runtime.open_fds",),
            "process_open_fds",
        ),
        Figure("gauge", "descriptors", "As many as are allowed", "`LimitNOFILE=` sets it", (), "process_max_fds"),
        Figure(
            "gauge",
            "seconds since 1970",
            "When the process started; `changes()` of it counts restarts, those by systemd's watchdog too",
            "Changing without an operator's doing: the journal of systemd and the log say why",
            (),
            "process_start_time_seconds",
        ),
        Figure(
            "gauge",
            "threads",
            "Threads of Python",
            "A hanging file system holds some for a while",
            ("runtime.threads",),
        ),
        Figure(
            "gauge",
            "seconds",
            "How late the loop woke last, tried twice a second",
            "Above some milliseconds everybody waits as long: processor, swap, or a disk that hangs in write(2)",
            ("runtime.loop_lag_s",),
            "scratchd_loop_lag_seconds",
        ),
        Figure(
            "gauge",
            "seconds",
            "The latest it woke within the last minute",
            "As above",
            ("runtime.loop_lag_max_s",),
            "scratchd_loop_lag_max_seconds",
        ),
        Figure(
            "summary",
            "seconds",
            "Pauses for garbage collection: how many, and their sum",
            _GC,
            ("runtime.gc_pause_s.count", "runtime.gc_pause_s.total"),
            "scratchd_gc_pause_seconds",
        ),
        Figure(
            "gauge",
            "seconds",
            "The longest of them",
            _GC,
            ("runtime.gc_pause_s.max",),
            "scratchd_gc_pause_max_seconds",
        ),
        Figure(
            "counter",
            "collections",
            "Collections by generation",
            _GC,
            ("runtime.gc[].collections",),
            "python_gc_collections_total",
            ("generation",),
        ),
        Figure(
            "counter",
            "objects",
            "Objects collected by generation",
            _GC,
            ("runtime.gc[].collected",),
            "python_gc_objects_collected_total",
            ("generation",),
        ),
        Figure(
            "counter",
            "objects",
            "Objects that could not be collected, by generation",
            "Above 0 is a defect: report it",
            ("runtime.gc[].uncollectable",),
            "python_gc_objects_uncollectable_total",
            ("generation",),
        ),
    ),
)

INSTANCE = Group(
    "Instance",
    "",
    (
        Figure(
            "info",
            "",
            "The version of scratchd, the instance's name, and the versions of what it runs on; `librdkafka` is empty "
            "while Kafka is off",
            "Several versions at once are a rollout under way, or one that was left half done",
            ("version", "instance", "build.{component}"),
            "scratchd_build_info",
            ("version", "instance", "python", "trio", "librdkafka"),
        ),
        Figure(
            "info",
            "",
            "The interpreter",
            "",
            (),
            "python_info",
            ("implementation", "major", "minor", "patchlevel", "version"),
        ),
        Figure("text", "ISO 8601, UTC", "When the process started", "", ("started_at",)),
        Figure(
            "text",
            "UUID",
            "The epoch of this start: the first half of the `scratchd-id` of the lines received since",
            "",
            ("flavors.{flavor}.epoch",),
        ),
        Figure(
            "gauge", "seconds", "For how long it has run", "**Low** without an operator's doing: a crash", ("uptime_s",)
        ),
    ),
)
