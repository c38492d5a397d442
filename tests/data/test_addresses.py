import pytest

from mlopsdeploy.data.addresses import is_database, is_remote, shown, split_table, without_secrets


@pytest.mark.parametrize(
    ("reference", "database", "remote"),
    [
        ("reviews.csv", False, False),
        ("/data/*.parquet", False, False),
        ("-", False, False),
        ("C:\\data\\a.csv", False, False),
        ("file:///data/a.csv", False, False),
        ("postgresql+psycopg://me@host/db#t", True, False),
        ("duckdb:///a.duckdb", True, False),
        ("POSTGRESQL://host/db", True, False),
        ("s3://bucket/a.csv", False, True),
        ("gs://bucket/*.parquet", False, True),
        ("https://example.org/a.csv", False, True),
    ],
)
def test_what_a_reference_is(reference, database, remote):
    assert is_database(reference) is database
    assert is_remote(reference) is remote


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("postgresql://h/db#mart.scored", ("postgresql://h/db", "mart.scored")),
        ("sqlite:///a.db", ("sqlite:///a.db", None)),
        ("postgresql://me:a#b@h/db", ("postgresql://me:a#b@h/db", None)),
        ("sqlite:////data#1/a.db", ("sqlite:////data#1/a.db", None)),
        ("sqlite:////data#1/a.db#t", ("sqlite:////data#1/a.db", "t")),
        ('duckdb:///a.db#"odd.name"', ("duckdb:///a.db", '"odd.name"')),
    ],
)
def test_the_table_is_the_urls_fragment(reference, parts):
    assert split_table(reference) == parts


@pytest.mark.parametrize(
    ("reference", "safe"),
    [
        ("postgresql://me:pw@h:1/db#t", "postgresql://me:***@h:1/db#t"),
        ("postgresql://me:p@w/x?y@h/db", "postgresql://me:***@h/db"),
        ("postgresql://:pw@h/db", "postgresql://:***@h/db"),
        ("postgresql://me@h/db?sslpassword=pw&x=1", "postgresql://me@h/db?sslpassword=***&x=1"),
        ("https://h/a.csv?X-Amz-Signature=ab&n=1", "https://h/a.csv?X-Amz-Signature=***&n=1"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
        ("reviews.csv", "reviews.csv"),
    ],
)
def test_secrets_are_not_shown(reference, safe):
    assert shown(reference) == safe


@pytest.mark.parametrize(
    ("reference", "hidden"),
    [
        ("postgresql://me:p@w@h/db?sslpassword=x1", "*** and ***"),
        ("sqlite:///a.db", "p@w and x1"),
    ],
)
def test_what_is_hidden_is_hidden_in_messages_too(reference, hidden):
    assert without_secrets("p@w and x1", reference) == hidden
