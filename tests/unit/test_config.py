"""What is wrong in a configuration is said, all of it, with key, value, rule and the nearest known name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scratchd.config import Config, ConfigError, File, Flavor, Http, Journal, Kafka, load

GR: dict[str, object] = {"name": "gr", "hosts": ["www.example.gr"]}
TR: dict[str, object] = {"name": "tr", "hosts": ["www.example.com.tr"]}

Load = Callable[..., Config]
Errors = Callable[..., list[str]]


def test_defaults_are_the_contracts(load_text: Load) -> None:
    config = load_text(json.dumps({"flavors": [GR]}))
    assert config == Config(flavors=(Flavor(name="gr", hosts=("www.example.gr",)),))
    assert (config.instance, config.http.listen, config.http.admin_listen) == (
        "",
        ("127.0.0.1:9006",),
        ("127.0.0.1:9007",),
    )
    assert config.http.admin_allow == config.http.trusted_proxies == ("127.0.0.0/8", "::1/128")
    assert (config.http.max_head_bytes, config.http.max_query_bytes, config.http.max_parameters) == (16384, 8192, 256)
    assert (config.journal.segment_bytes, config.journal.quota_bytes) == (64 << 20, 10 << 30)
    assert (config.file.path, config.kafka.topic) == ("/var/log/scratchd/{flavor}/{date}.log", "scratch-{flavor}")
    assert config.flavors[0].time_zone == "UTC"


def test_numbers_get_their_keys_type(load_text: Load) -> None:
    config = load_text('{"http": {"keep_alive_s": 3, "max_connections": 1e3}, "flavors": ' + json.dumps([GR]) + "}")
    assert (type(config.http.keep_alive_s), type(config.http.max_connections)) == (float, int)
    assert (config.http.keep_alive_s, config.http.max_connections) == (3, 1000)


FILE_ERRORS = [
    pytest.param("", "line 1, column 1: expected a JSON object, the file is empty", id="empty"),
    pytest.param(" \n", "line 2, column 1: expected a JSON object, the file is empty", id="blank"),
    pytest.param("[]", "expected a JSON object, got an array", id="array"),
    pytest.param("null", "expected a JSON object, got null", id="null"),
    pytest.param('{"a": 1}\n}', "line 2, column 1: extra data", id="trailing"),
    pytest.param('{\n  "a": tru\n}', "line 2, column 8: expecting value", id="position"),
    pytest.param(
        '{"a": 1 // one\n}', "line 1, column 9: expecting ',' delimiter (JSON knows no comments)", id="comment"
    ),
    pytest.param("\ufeff{}", "line 1, column 1: begins with a byte order mark: remove it", id="bom"),
    pytest.param('{"a": NaN}', "contains NaN, which is no JSON: a number must be finite", id="nan"),
    pytest.param('{"a": -Infinity}', "contains -Infinity, which is no JSON: a number must be finite", id="infinity"),
    pytest.param('{"a":' * 100_000, "is nested too deeply", id="deep"),
    pytest.param(b'{\n"a": "\xff"}', "line 2: is not UTF-8: byte 0xff", id="not-utf-8"),
    pytest.param('{"a": "\ud800"}', "line 1: is not UTF-8: byte 0xed", id="surrogate-in-utf-8"),
]


@pytest.mark.parametrize(("text", "error"), FILE_ERRORS)
def test_what_is_no_json_object_is_refused_with_its_place(errors_of: Errors, text: str | bytes, error: str) -> None:
    assert errors_of(text) == [f"config.json: {error}"]


def test_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for path, why in [
        (tmp_path / "none.json", f"none.json: cannot be read: No such file or directory: {tmp_path}/none.json"),
        (tmp_path, f"{tmp_path.name}: cannot be read: Is a directory: {tmp_path}"),
        (Path("/dev/zero"), "zero: is too large for a configuration: more than 16777216 bytes"),
    ]:
        with pytest.raises(ConfigError) as refused:
            load(path)
        assert refused.value.errors == [why]
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Path("a\0b"))


ERRORS = [
    # types and ranges
    ({"http": 5}, "http: expected an object, got a number"),
    ({"http": None}, "http: expected an object, got null"),
    ({"flavors": {}}, "flavors: an object is not an array"),
    ({"flavors": []}, "flavors: is empty: at least one entry is required"),
    ({"flavors": [GR, 5]}, "flavors[1]: expected an object, got a number"),
    ({"flavors": [{"hosts": ["a"]}]}, "flavors[0].name: is required, but missing"),
    ({"flavors": [{"name": "a"}]}, "flavors[0].hosts: is required, but missing"),
    ({"flavors": [{"name": "a", "hosts": []}]}, "flavors[0].hosts: is empty: at least one entry is required"),
    ({"flavors": [{"name": "a", "hosts": "b"}]}, 'flavors[0].hosts: "b" is not an array'),
    ({"flavors": [{"name": "a", "hosts": [1]}]}, "flavors[0].hosts[0]: 1 is not a string"),
    ({"instance": None}, "instance: null is not a string"),
    ({"http": {"listen": []}}, "http.listen: is empty: at least one entry is required"),
    ({"http": {"max_connections": "many"}}, 'http.max_connections: "many" is not a number'),
    ({"http": {"max_connections": True}}, "http.max_connections: true is not a number"),
    ({"http": {"max_connections": 1.5}}, "http.max_connections: 1.5 is not a whole number"),
    ({"http": {"max_connections": 0}}, "http.max_connections: 0 is too small: it must be at least 1"),
    ({"http": {"max_head_bytes": -1}}, "http.max_head_bytes: -1 is too small: it must be at least 1"),
    ({"http": {"max_query_bytes": 0}}, "http.max_query_bytes: 0 is too small: it must be at least 1"),
    ({"http": {"max_parameters": 0}}, "http.max_parameters: 0 is too small: it must be at least 1"),
    (
        {"http": {"max_parameters": 2**63}},
        f"http.max_parameters: {2**63} is too large: it must be at most {2**63 - 1}",
    ),
    ({"http": {"head_timeout_s": 0}}, "http.head_timeout_s: 0 is too small: it must be greater than 0"),
    ({"http": {"write_timeout_s": 0}}, "http.write_timeout_s: 0 is too small: it must be greater than 0"),
    ({"http": {"keep_alive_s": -0.5}}, "http.keep_alive_s: -0.5 is too small: it must be greater than 0"),
    ({"http": {"stop_timeout_s": 0}}, "http.stop_timeout_s: 0 is too small: it must be greater than 0"),
    (
        {"http": {"stop_timeout_s": 1e10}},
        "http.stop_timeout_s: 10000000000.0 is too large: it must be at most 1000000000",
    ),
    ({"http": {"keep_alive_s": [1]}}, "http.keep_alive_s: an array is not a number"),
    ({"checks": {"duplicate_window_s": -1}}, "checks.duplicate_window_s: -1 is too small: it must be at least 0"),
    (
        {"checks": {"client_requests_per_min": -1}},
        "checks.client_requests_per_min: -1 is too small: it must be at least 0",
    ),
    ({"checks": {"store_entries": 0}}, "checks.store_entries: 0 is too small: it must be at least 1"),
    ({"journal": {"sync_interval_s": 0}}, "journal.sync_interval_s: 0 is too small: it must be greater than 0"),
    ({"journal": {"segment_bytes": 65535}}, "journal.segment_bytes: 65535 is too small: it must be at least 65536"),
    ({"file": {"flush_interval_s": 0}}, "file.flush_interval_s: 0 is too small: it must be greater than 0"),
    ({"file": {"enabled": 1}}, "file.enabled: 1 is neither true nor false"),
    ({"file": {"enabled": "yes"}}, 'file.enabled: "yes" is neither true nor false'),
    ({"kafka": {"key_parameter": 1}}, "kafka.key_parameter: 1 is not a string"),
    ({"kafka": {"key_parameter": "a\0"}}, 'kafka.key_parameter: "a\\u0000" contains a NUL character'),
    (
        {"kafka": {"key_parameter": "\ud800"}},
        'kafka.key_parameter: "\\ud800" is no Unicode text: it contains half of a surrogate pair',
    ),
    ({"query": {"repeated": "lst"}}, 'query.repeated: "lst" is none of "first", "last", "list"; did you mean "list"?'),
    ({"query": {"repeated": 1}}, 'query.repeated: 1 is none of "first", "last", "list"'),
    ({"query": {"repeated": []}}, 'query.repeated: an array is none of "first", "last", "list"'),
    (
        {"log": {"level": "warn"}},
        'log.level: "warn" is none of "debug", "error", "info", "warning"; did you mean "warning"?',
    ),
    # unknown keys
    ({"htp": {}}, 'htp: is not a known key; did you mean "http"?'),
    ({"http": {"listn": []}}, 'http.listn: is not a known key; did you mean "listen"?'),
    ({"listen": []}, 'listen: is not a known key; did you mean "http.listen"?'),
    ({"hosts": []}, 'hosts: is not a known key; did you mean "flavors[].hosts"?'),
    ({"xyzzy": 1}, "xyzzy: is not a known key"),
    ({"a\nb": 1}, '["a\\nb"]: is not a known key'),
    ({"x" * 1000: 1}, '["' + "x" * 100 + '..."]: is not a known key'),
    ({"flavors": [{**GR, "timezone": "UTC"}]}, 'flavors[0].timezone: is not a known key; did you mean "time_zone"?'),
    # one value's syntax
    (
        {"instance": "a b"},
        'instance: "a b" is no name of an instance: only letters (A-Z, a-z), digits and - are allowed',
    ),
    (
        {"instance": "a_b"},
        'instance: "a_b" is no name of an instance: only letters (A-Z, a-z), digits and - are allowed',
    ),
    ({"http": {"listen": ["9006"]}}, 'http.listen[0]: "9006" has no port: expected host:port, [v6]:port or unix:/path'),
    (
        {"http": {"listen": ["unix:/run/{instance}"]}},
        'http.listen[0]: "unix:/run/{instance}" has the unknown field {instance}: none is allowed here',
    ),
    (
        {"http": {"admin_listen": ["unix:/run/{instanc}"]}},
        'http.admin_listen[0]: "unix:/run/{instanc}" has the unknown field {instanc}; did you mean "instance"?',
    ),
    (
        {"http": {"admin_allow": ["10.0.0.1/8"]}},
        'http.admin_allow[0]: "10.0.0.1/8" has bits set beyond its prefix; did you mean "10.0.0.0/8"?',
    ),
    (
        {"http": {"trusted_proxies": ["10.0.0.0/8", "::1/129"]}},
        'http.trusted_proxies[1]: "::1/129" is no network: expected an address and a prefix length, as in 10.0.0.0/8',
    ),
    ({"http": {"track_path": "track"}}, 'http.track_path: "track" does not begin with /'),
    ({"http": {"track_path": "/t?"}}, 'http.track_path: "/t?" contains a ?, where a request\'s path ends'),
    (
        {"http": {"track_path": "/é"}},
        (
            'http.track_path: "/é" contains what no request target may: only the bytes 0x21-0x7E are compared, '
            "percent-encode the others"
        ),
    ),
    ({"journal": {"directory": ""}}, 'journal.directory: "" is empty'),
    (
        {"file": {"path": "var/{flavor}/{date}"}},
        'file.path: "var/{flavor}/{date}" is not absolute: expected a path that begins with /',
    ),
    (
        {"file": {"path": "/var/../{flavor}/{date}"}},
        'file.path: "/var/../{flavor}/{date}" contains ..: expected a path that leads straight to its place',
    ),
    (
        {"file": {"path": "/{flavor}/{date}/"}},
        'file.path: "/{flavor}/{date}/" is a directory: expected the path of a file',
    ),
    ({"file": {"path": "/{flavor}"}}, 'file.path: "/{flavor}" lacks {date}'),
    ({"file": {"path": "/x"}}, 'file.path: "/x" lacks {flavor} and {date}'),
    (
        {"file": {"path": "/{flavor}/{dat}"}},
        'file.path: "/{flavor}/{dat}" has the unknown field {dat}; did you mean "date"?',
    ),
    (
        {"file": {"path": "/{flavor}/{date}}"}},
        'file.path: "/{flavor}/{date}}" has a brace that encloses no field: expected {flavor}, {date}, {instance}',
    ),
    (
        {"file": {"path": "/{flavor}/{date}\n"}},
        'file.path: "/{flavor}/{date}\\n" contains characters that cannot be printed',
    ),
    (
        {"kafka": {"bootstrap_servers": "a:1,b"}},
        (
            'kafka.bootstrap_servers: "a:1,b" is no host:port,host:port: "b" has no port: expected host:port, '
            "[v6]:port or unix:/path"
        ),
    ),
    (
        {"kafka": {"bootstrap_servers": "a:0"}},
        'kafka.bootstrap_servers: "a:0" is no host:port,host:port: "a:0" has no port that can be connected to',
    ),
    (
        {"kafka": {"bootstrap_servers": "SSL://a:1"}},
        (
            'kafka.bootstrap_servers: "SSL://a:1" has a scheme in "SSL://a:1": expected host:port; see '
            "security.protocol of librdkafka"
        ),
    ),
    (
        {"kafka": {"topic": "t/{flavor}"}},
        (
            'kafka.topic: "t/{flavor}" is no name of a Kafka topic: letters (A-Z, a-z), digits, ., _ and - are '
            "allowed, but not . or .. alone"
        ),
    ),
    (
        {"kafka": {"topic": "{date}-{flavor}"}},
        'kafka.topic: "{date}-{flavor}" has the unknown field {date}: expected {flavor}',
    ),
    (
        {"flavors": [{**GR, "name": "g r"}]},
        'flavors[0].name: "g r" is no name of a flavor: one or more letters (A-Z, a-z), digits, - and _ are allowed',
    ),
    (
        {"flavors": [{**GR, "name": ""}]},
        'flavors[0].name: "" is no name of a flavor: one or more letters (A-Z, a-z), digits, - and _ are allowed',
    ),
    (
        {"flavors": [{**GR, "name": "x" * 256}]},
        f'flavors[0].name: "{"x" * 100}..." is too long for the name of a directory: 256 characters, at most 255',
    ),
    ({"flavors": [{**GR, "file_path": "/x"}]}, 'flavors[0].file_path: "/x" lacks {date}'),
    (
        {"flavors": [GR, {**TR, "time_zone": "Europe/Athen"}]},
        'flavors[1].time_zone: "Europe/Athen" is not a known time zone; did you mean "Europe/Athens"?',
    ),
    # several keys together
    (
        {"file": {"enabled": False}},
        "file.enabled: false, and kafka.enabled too: at least one backend must be enabled",
    ),
    ({"kafka": {"enabled": True}}, 'kafka.bootstrap_servers: "" is empty: required when kafka.enabled is true'),
    (
        {"instance": "1"},
        (
            'file.path: "/var/log/scratchd/{flavor}/{date}.log" lacks {instance}: instances must not share a file, and '
            'this one is named "1"'
        ),
    ),
    (
        {"http": {"listen": ["127.0.0.1:9007"]}},
        'http.admin_listen: "127.0.0.1:9007" is already listed in http.listen',
    ),
    (
        {"journal": {"segment_bytes": 65536, "quota_bytes": 131071}},
        "journal.quota_bytes: 131071 is too small: it must be at least two segments of journal.segment_bytes, 131072",
    ),
    (
        {"flavors": [GR, {**TR, "quota_bytes": 1}]},
        "flavors[1].quota_bytes: 1 is too small: it must be at least two segments of journal.segment_bytes, 134217728",
    ),
    ({"flavors": [GR, {**TR, "name": "gr"}]}, 'flavors[1].name: "gr" is already that of flavors[0]'),
    (
        {"flavors": [GR, {**TR, "hosts": ["b", "WWW.Example.gr."]}]},
        'flavors[1].hosts: "WWW.Example.gr." is already that of flavors[0]',
    ),
    (
        {"flavors": [{**GR, "hosts": ["*"]}, {**TR, "hosts": ["*"]}]},
        'flavors[1].hosts: "*" is already that of flavors[0]',
    ),
    ({"flavors": [{**GR, "hosts": ["a", "A"]}]}, 'flavors[0].hosts: "A" is there twice'),
    (
        {"flavors": [{**GR, "hosts": ["[::1]"]}, {**TR, "hosts": ["[0:0::1]"]}]},
        'flavors[1].hosts: "[0:0::1]" is already that of flavors[0]',
    ),
    (
        {"flavors": [GR, {**TR, "file_path": "/var/log/scratchd/gr//./{date}.log"}]},
        'flavors[1].file_path: "/var/log/scratchd/gr/{date}.log" is already that of flavors[0]',
    ),
    (
        {"flavors": [GR, {**TR, "kafka_topic": "scratch-gr"}]},
        'flavors[1].kafka_topic: "scratch-gr" is already that of flavors[0]',
    ),
    (
        {"kafka": {"topic": "all"}, "flavors": [GR, TR]},
        'flavors[1].kafka_topic: "all" is already that of flavors[0]',
    ),
    (
        {"flavors": [{**GR, "name": "x" * 242}]},
        f'flavors[0].kafka_topic: "scratch-{"x" * 92}..." is too long for a Kafka topic: 250 characters, at most 249',
    ),
    (
        {"kafka": {"topic": ".{flavor}", "librdkafka": []}},
        "kafka.librdkafka: expected an object, got an array",
    ),
]


@pytest.mark.parametrize(("document", "error"), ERRORS, ids=[error[:60] for _, error in ERRORS])
def test_a_broken_rule_is_the_one_error(errors_of: Errors, document: dict[str, object], error: str) -> None:
    assert errors_of(document) == [f"config.json: {error}"]


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "Europe",
        "europe",
        "localtime",
        "posixrules",
        "Factory",
        "posix/UTC",
        "right/UTC",
        "../UTC",
        "/etc/localtime",
        "x" * 5000,
        "zone.tab",
        "Europe/Athens/",
        "é",
    ],
)
def test_what_is_no_zone_is_refused(errors_of: Errors, zone: str) -> None:
    (error,) = errors_of({"flavors": [{**GR, "time_zone": zone}]})
    assert "is not a known time zone" in error


def test_missing_tz_database_is_named(errors_of: Errors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scratchd.config.syntax._zones", frozenset)
    (error,) = errors_of({"flavors": [{**GR, "time_zone": "Nowhere"}]})
    assert error.endswith("this machine has no tz database, install tzdata")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("checks", "duplicate_window_s", 0),
        ("checks", "duplicate_window_s", 0.001),
        ("checks", "client_requests_per_min", 0),
        ("http", "max_parameters", 1),
        ("http", "head_timeout_s", 0.001),
        ("http", "admin_listen", []),
        ("http", "admin_listen", ["unix:/run/scratchd/{instance}.sock"]),
        ("http", "admin_allow", []),
        ("http", "trusted_proxies", ["192.0.2.1", "2001:db8::/32"]),
        ("http", "listen", ["127.0.0.1:0", "127.0.0.1:0"]),
        ("http", "track_path", "/"),
        ("http", "track_path", "/a#b;c%20d"),
        ("journal", "segment_bytes", 65536),
        ("kafka", "key_parameter", ""),
        ("kafka", "key_parameter", None),
        ("kafka", "bootstrap_servers", "a:1,[::1]:2,10.0.0.1:3"),
        ("query", "repeated", "list"),
    ],
)
def test_edge_of_a_rule_passes(load_text: Load, section: str, key: str, value: object) -> None:
    config = load_text(json.dumps({"flavors": [GR], section: {key: value}}))
    got = getattr(getattr(config, section), key)
    assert (list(got) if isinstance(value, list) else got) == value


def test_quota_of_exactly_two_segments_passes(load_text: Load) -> None:
    load_text(json.dumps({"flavors": [GR], "journal": {"segment_bytes": 65536, "quota_bytes": 131072}}))


def test_every_error_is_said_at_once(errors_of: Errors) -> None:
    document = {
        "htp": {},
        "http": {"listen": ["x"], "max_connections": 0},
        "file": {"enabled": False},
        "kafka": {"librdkafka": {"acks": 1, "foo": "bar"}},
        "flavors": [{**GR, "time_zone": "x"}, GR, {"name": "tr", "file_path": "/var/log/scratchd/gr/{date}.log"}],
    }
    assert [error.split(": ")[1] for error in errors_of(document)] == [
        "htp",
        "http.listen[0]",
        "http.max_connections",
        "flavors[0].time_zone",
        "flavors[2].hosts",
        "file.enabled",
        "flavors[1].hosts",
        "flavors[1].name",
        "flavors[2].file_path",
        "kafka.librdkafka.acks",
        "kafka.librdkafka.foo",
    ]


def test_a_broken_value_makes_no_error_of_other_keys(errors_of: Errors) -> None:
    for document in (
        {"file": {"enabled": False}, "kafka": {"enabled": "true"}},
        {"kafka": {"enabled": True, "bootstrap_servers": 5}},
        {"kafka": {"topic": "same/"}, "flavors": [GR, TR]},
        {"file": {"path": "/same"}, "flavors": [GR, TR]},
        {"flavors": [{**GR, "name": "?"}, {**TR, "name": "tr"}]},
        {"instance": "?", "http": {"admin_listen": ["unix:/{instance}"]}},
        {"journal": {"segment_bytes": 1, "quota_bytes": 5}},
    ):
        assert len(errors_of(document)) == 1, document


def test_repeated_keys_are_refused_wherever_they_are(errors_of: Errors) -> None:
    text = """{"http": {"listen": ["a:1"], "listen": ["b:1"], "listen": ["c:1"]}, "log": {}, "log": {},
               "kafka": {"librdkafka": {"linger.ms": 1, "linger.ms": 2}},
               "flavors": [{"name": "gr", "name": "gr", "hosts": ["a"]}]}"""
    assert errors_of(text) == [
        "config.json: log: is there more than once",
        "config.json: http.listen: is there more than once",
        "config.json: kafka.librdkafka.linger.ms: is there more than once",
        "config.json: flavors[0].name: is there more than once",
    ]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" * 5000, "-" + "1" * 5000, "1e400"])
@pytest.mark.parametrize("key", ["max_connections", "keep_alive_s"])
def test_huge_number_is_an_error_of_its_key(errors_of: Errors, key: str, number: str) -> None:
    (error,) = errors_of(f'{{"http": {{"{key}": {number}}}, "flavors": {json.dumps([GR])}}}')
    assert error.startswith(f"config.json: http.{key}: ")
    assert error.endswith("is too large a number")


def test_instance_argument_replaces_the_key(load_text: Load) -> None:
    text = json.dumps({"instance": 5, "file": {"path": "/{instance}/{flavor}/{date}"}, "flavors": [GR]})
    config = load_text(text, instance="b-2")
    assert config.instance == "b-2"
    assert config.file_path(config.flavors[0]) == "/b-2/gr/{date}"


def test_instance_argument_is_checked(errors_of: Errors) -> None:
    (error,) = errors_of({}, instance="a/b")
    assert error.startswith('config.json: instance: "a/b" is no name of an instance')


def test_empty_instance_argument_unnames(load_text: Load) -> None:
    assert load_text(json.dumps({"instance": "1", "flavors": [GR]}), instance="").instance == ""


def test_own_path_of_a_flavor_needs_the_instance_too(errors_of: Errors) -> None:
    document = {"file": {"path": "/{instance}/{flavor}/{date}"}, "flavors": [{**GR, "file_path": "/x/{date}"}]}
    (error,) = errors_of(document, instance="1")
    assert error.startswith('config.json: flavors[0].file_path: "/x/{date}" lacks {instance}')


def test_instance_stands_in_admin_paths_and_directories() -> None:
    config = Config(instance="7", http=Http(admin_listen=("unix:/run/{instance}.sock", "[::1]:1")), flavors=())
    assert [str(at) for at in config.admin_addresses] == ["unix:/run/7.sock", "[::1]:1"]
    assert config.journal_directory == Path("/var/lib/scratchd/7")
    assert Config(flavors=()).journal_directory == Path("/var/lib/scratchd/_")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.integers(0, 2**70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
_HOSTILE = st.sampled_from(
    ["", "*", "{", "{}", "{flavor}", "{instance}", "\0", "\ud800", "a" * 300, "[::1]:", "..", "/..", 10**4000]
)
_value = _json | _HOSTILE


def _section(struct: type) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(st.sampled_from(struct.__struct_fields__), _value, max_size=4)  # type: ignore[attr-defined]


_documents = st.fixed_dictionaries(
    {},
    optional={
        "instance": _value,
        "http": _section(Http) | _value,
        "journal": _section(Journal) | _value,
        "file": _section(File) | _value,
        "kafka": _section(Kafka)
        | st.fixed_dictionaries({"librdkafka": st.dictionaries(st.text(max_size=3) | _HOSTILE.map(str), _value)}),
        "flavors": st.lists(_section(Flavor) | st.just(GR) | _value, max_size=3) | _value,
    },
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(_documents | _json)
def test_any_json_is_a_configuration_or_its_errors(load_text: Load, document: object) -> None:
    errors: list[str] | None = None
    try:
        load_text(_dumps(document))
    except ConfigError as error:
        errors = error.errors
    assert errors != []
    for line in errors or ():
        assert line.startswith("config.json: ")
        assert line.isprintable()
        assert len(line) < 1000


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_configuration_or_its_errors(load_text: Load, data: bytes) -> None:
    with pytest.raises(ConfigError):
        load_text(data)


def _dumps(value: object) -> str:
    """JSON of any value, integers beyond Python's own limit on digits too."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_dumps(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dumps, value)) + "]"
    return "1" + "0" * 5000 if isinstance(value, int) and value >= 10**4000 else json.dumps(value)
