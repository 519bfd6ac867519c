"""Conditions that people write: useful SQL works, nothing reaches out, and errors say what to change."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import LOCAL_AND_S3
from videogen.data.tables import Conditions, check_expression, index_schema, read_index, select, write_index
from videogen.errors import UserError

SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("motion", pa.float32()),
        ("width", pa.int32()),
        ("caption", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("size", pa.struct([("height", pa.int32())])),
        ("Odd Name", pa.int32()),
        ("raw", pa.large_binary()),
    ]
)


def rows(count: int = 10) -> pa.Table:
    values = [
        {
            "item_id": f"i{n}",
            "motion": n / 10 if n != 7 else None,
            "width": n * 100,
            "caption": f"a clip of {n} dogs",
            "tags": ["even"] if n % 2 == 0 else ["odd", "prime"],
            "size": {"height": n},
            "Odd Name": n,
            "raw": bytes([n % 256]),
        }
        for n in range(count)
    ]
    return pa.Table.from_pylist(values, SCHEMA)


def chosen(where: str, tmp_path: Path) -> list[int]:
    pq.write_table(rows(), tmp_path / "rows.parquet", row_group_size=3)
    batches = select([str(tmp_path / "rows.parquet")], ["item_id"], where)
    return [int(item[1:]) for batch in batches for item in batch["item_id"].to_pylist()]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("motion >= 0.8", [8, 9]),
        ("motion < 0.2 or width = 500 -- and so on", [0, 1, 5]),
        ("motion is null", [7]),
        ("not motion < 0.5", [5, 6, 8, 9]),  # what is not known is not chosen
        ("caption like '%3 dogs'", [3]),
        ("caption in ('a clip of 4 dogs', 'x')", [4]),
        ("width between 200 and 300", [2, 3]),
        ("list_contains(tags, 'prime') and width > 600", [7, 9]),
        ("len(list_filter(tags, lambda t: t = 'even')) = 1 and width < 300", [0, 2]),
        ("size.height % 4 = 1", [1, 5, 9]),
        ('"Odd Name" = 3', [3]),
        ("MOTION > 0.85", [9]),
        ("case when width > 500 then motion > 0.8 else false end", [9]),
        ("regexp_matches(caption, '[12] dogs')", [1, 2]),
        ("try_cast(split_part(caption, ' ', 4) as integer) = 6", [6]),
        ("octet_length(raw) = 1 and width = 0", [0]),
        ("true", list(range(10))),
        ("1 = 2", []),
    ],
)
def test_conditions_choose_rows_in_order(where, expected, tmp_path):
    check_expression(where, SCHEMA)
    assert chosen(where, tmp_path) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("motoin > 0.3", "names the column 'motoin', which does not exist: did you mean 'motion'?"),
        ("rows.motion > 0.3", "names the column 'rows', which does not exist"),
        ("zzzz > 0.3", "names the column 'zzzz', which does not exist: the columns are item_id, motion, width"),
        ("motion >> > 0.3", 'syntax error at or near ">", at character 11'),
        ("motion > 'fast", "unterminated"),
        ("(motion > 0.3", 'syntax error at or near "0.3", at character 11'),
        ("motion > 0.3)", 'syntax error at or near ")"'),
        ("", "is empty"),
        ("motion", "gives FLOAT, but must be true or false"),
        ("motion + 1", "gives FLOAT, but must be true or false"),
        ("motion > 0.3, width > 5", "must be one expression"),
        ("motion > 0.3 order by motion", "must be one expression"),
        ("motion > 0.3 from rows", "must be one expression"),
        ("motion > 0.3 as kept", "must be one expression"),
        ("motion > 0.3 limit 1", "must be one expression"),
        ("*", "but a plain condition is expected"),
        ("max(motion) > 0.3", "not a function of one row"),
        ("row_number() over () = 1", "but a plain condition is expected"),
        ("no_such_function(motion)", "no_such_function does not exist"),
        ("lower(motion, width) = 'a'", "cannot be evaluated"),
        ("caption > 3 and list_contains(width, 3)", "cannot be evaluated"),
        ("motion > ?", "but a plain condition is expected"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_before_any_work(where, message):
    with pytest.raises(UserError) as caught:
        check_expression(where, SCHEMA, "--where")
    text = str(caught.value)
    assert message in text
    assert text.startswith("--where ")
    assert "\n" not in text.replace(repr(where), "")


@pytest.mark.parametrize(
    "where",
    [
        "width > (select count(*) from read_csv('{secret}'))",
        "exists (select * from '{secret}')",
        "width in (select 1)",
        "motion > 0 union select * from read_text('{secret}')",
        "motion > 0; copy (select 1) to '{target}'",
        "motion > 0) from rows; attach '{target}' as x; select (true",
        "motion > 0; install httpfs",
        "motion > 0; load httpfs",
        "motion > 0; pragma database_list",
        "motion > 0; set memory_limit = '1TB'",
        "read_text('{secret}') = 'x'",
        "read_csv('{secret}') = 'x'",
        "read_parquet('{secret}') = 'x'",
        "glob('/etc/*') = 'x'",
        "sniff_csv('{secret}') = 'x'",
        "query('select 1') = 1",
        "getenv('HOME') = 'x'",
        "current_setting('temp_directory') = 'x'",
        "getvariable('x') = 1",
        "nextval('x') = 1",
        "random() < 0.5",
        "now() > '2020-01-01'::timestamptz",
        "current_timestamp > '2020-01-01'::timestamptz",
        "current_date > '2020-01-01'::date",
        "user = 'x'",
        "uuid() = 'x'",
        "set_seed(1) = 1",
        "copy",
        "SECRET.motion > 1",
    ],
)
def test_nothing_outside_the_row_can_be_reached(where, tmp_path):
    secret, target = tmp_path / "secret.csv", tmp_path / "target"
    secret.write_text("a\n1\n")
    SECRET = pa.table({"motion": [1.0]})  # noqa: F841, N806 - a variable of Python is out of reach, too
    with pytest.raises(UserError):
        check_expression(where.format(secret=secret, target=target), SCHEMA)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_the_database_itself_reaches_nothing_if_a_check_should_fail(tmp_path):
    import duckdb

    from videogen.data.tables.query import locked_connection

    (tmp_path / "secret.csv").write_text("a\n1\n")
    statements = [
        f"SELECT * FROM read_csv('{tmp_path}/secret.csv')",
        f"SELECT * FROM '{tmp_path}/secret.csv'",
        f"SELECT * FROM read_text('{tmp_path}/secret.csv')",
        f"SELECT * FROM glob('{tmp_path}/*')",
        f"COPY (SELECT 1) TO '{tmp_path}/target'",
        f"ATTACH '{tmp_path}/target' AS x",
        f"EXPORT DATABASE '{tmp_path}/target'",
        "SELECT * FROM read_csv('http://127.0.0.1:1/x.csv')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET memory_limit = '1TB'",
        "SELECT getenv('HOME')",
        "SELECT * FROM statements",
    ]
    with locked_connection() as connection:
        for statement in statements:
            with pytest.raises(duckdb.Error):
                connection.execute(statement).fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


@pytest.mark.parametrize(
    "call", ["repeat(caption, 9)", "lpad(caption, 9, 'x')", "range(width)", "List_Resize(tags, 9)"]
)
def test_functions_that_can_fill_the_memory_are_refused(call):
    with pytest.raises(UserError, match="can fill the memory"):
        check_expression(f"len({call}) > width", SCHEMA)


def test_a_value_that_does_not_fit_is_an_error_in_words(tmp_path):
    with (
        Conditions({"w": "caption::integer > 3"}, SCHEMA) as conditions,
        pytest.raises(UserError, match="Could not convert"),
    ):
        conditions(rows().to_batches()[0])


def test_several_conditions_are_evaluated_at_once():
    rules = {"sharp": "motion > 0.75", "wide": "width >= 800 -- wide", "any": "true"}
    with Conditions(rules, SCHEMA) as conditions:
        assert conditions.columns == ["motion", "width"]
        flags = conditions(rows().to_batches()[0])
        assert {name: values.to_pylist().count(True) for name, values in flags.items()} == {
            "sharp": 2,
            "wide": 2,
            "any": 10,
        }
        assert flags["sharp"].null_count == 0
        assert len(conditions(rows().to_batches()[0].slice(0, 0))["sharp"]) == 0


def test_types_and_columns_come_back_as_they_are_in_the_files(tmp_path):
    pq.write_table(rows(), tmp_path / "a.parquet")
    pq.write_table(rows(3), tmp_path / "b.parquet")
    files = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    table = pa.Table.from_batches(select(files, ["raw", "tags", "item_id"], "width = 200"))
    assert table.schema == pa.schema([SCHEMA.field(name) for name in ("raw", "tags", "item_id")])
    assert table.to_pylist() == [{"raw": b"\x02", "tags": ["even"], "item_id": "i2"}] * 2
    assert pa.Table.from_batches(select(files)).schema == SCHEMA
    with pytest.raises(UserError, match="Column 'heigth' does not exist"):
        select(files, ["heigth"])
    with pytest.raises(UserError, match="did you mean 'width'"):
        select(files, ["item_id"], "widht > 1")
    assert list(select([], ["item_id"], "anything")) == []


# --- the index ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", LOCAL_AND_S3)
def test_an_index_is_read_as_it_was_written_whatever_the_batches(where, tmp_path, request):
    uri = str(tmp_path) if where == "local" else request.getfixturevalue("s3")
    written = [write_index(uri, rows(25).to_batches(max_chunksize=size), rows_per_file=10) for size in (1, 3, 25)]
    assert written[0] == written[1] == written[2]
    manifest = {"index": written[0]}
    assert written[0]["rows"] == 25
    assert written[0]["files"] == [f"index/{written[0]['hash']}-{number:05}.parquet" for number in range(3)]
    assert pa.Table.from_batches(read_index(uri, manifest)).equals(rows(25))
    assert index_schema(uri, manifest) == SCHEMA
    (batch,) = read_index(uri, manifest, ["item_id"], "width = 1200")
    assert batch.to_pydict() == {"item_id": ["i12"]}
    other = write_index(uri, rows(24).to_batches(), rows_per_file=10)
    assert other["hash"] != written[0]["hash"]
    assert pa.Table.from_batches(read_index(uri, manifest)).equals(rows(25))


def test_an_index_without_rows_is_an_index(tmp_path):
    manifest = {"index": write_index(str(tmp_path), iter(()))}
    assert manifest["index"]["rows"] == 0
    assert list(read_index(str(tmp_path), manifest, where="motion > 1")) == []
    assert index_schema(str(tmp_path), manifest) == pa.schema([])
