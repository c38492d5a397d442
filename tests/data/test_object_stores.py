import gzip
import http.server
import io
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid

import pyarrow as pa
import pyarrow.parquet
import pytest

pytest.importorskip("fsspec")

import fsspec

from mlopsdeploy.data.object_stores import check_upload, expand, open_remote, signature, upload
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError


@pytest.fixture(scope="module")
def s3_server():
    """moto's server: not Amazon's, but it speaks S3's protocol over HTTP on a port."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p"]
    server = subprocess.Popen(
        [*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path):
    """An empty bucket."""
    import s3fs

    for name, value in {
        "ENDPOINT_URL": s3_server, "ACCESS_KEY_ID": "tester", "SECRET_ACCESS_KEY": "s3cret",
        "DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true",
        "CONFIG_FILE": str(tmp_path / "none"), "SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["s3", "memory"])
def store(request):
    if request.param == "s3":
        return request.getfixturevalue("s3")
    return f"memory:///{uuid.uuid4().hex[:8]}"


def _put(url, content):
    with fsspec.open(url, "wb") as file:
        file.write(content)


def test_what_is_uploaded_is_read_again(store, tmp_path):
    local = tmp_path / "reviews.csv"
    local.write_bytes(b"id,review\n" + b"1,good\n" * 3_000_000)  # 21 MB: several blocks and parts
    upload(local, f"{store}/day/reviews.csv")
    with open_remote(f"{store}/day/reviews.csv") as file:
        assert file.peek(4)[:4] == b"id,r"
        assert file.read() == local.read_bytes()
        file.seek(-7, io.SEEK_END)
        assert file.read() == b"1,good\n"
        assert file.tell() == local.stat().st_size


def test_parquet_and_gzip(store, tmp_path):
    table = pa.table({"id": range(100_000), "review": ["good"] * 100_000})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=10_000)
    upload(tmp_path / "a.parquet", f"{store}/a.parquet")
    with open_remote(f"{store}/a.parquet") as file:
        rows = pyarrow.parquet.ParquetFile(file)
        assert pa.Table.from_batches(rows.iter_batches(columns=["id"])) == table.select(["id"])
    _put(f"{store}/a.csv.gz", gzip.compress(b"id\n" + b"1\n" * 100_000))
    with open_remote(f"{store}/a.csv.gz") as file:
        assert gzip.GzipFile(fileobj=file).read() == b"id\n" + b"1\n" * 100_000


def test_expand(store):
    for name in ("b.csv", "a.csv", "deep/c.csv", "_SUCCESS", ".hidden", "d.parquet"):
        _put(f"{store}/in/{name}", b"x")
    _put(f"{store}/inner.csv", b"x")
    folder = [f"{store}/in/{name}" for name in ("a.csv", "b.csv", "d.parquet", "deep/c.csv")]
    assert expand(f"{store}/in/*.csv") == folder[:2]
    assert expand(f"{store}/in/**/c.csv") == folder[3:]
    assert expand(f"{store}/in") == folder
    assert expand(f"{store}/in/") == folder
    assert expand(f"{store}/in/b.csv") == [f"{store}/in/b.csv"]
    for nothing in ("in/*.tsv", "none.csv", "none/"):
        with pytest.raises(InputError, match="there is nothing of that name"):
            expand(f"{store}/{nothing}")


def test_web_addresses_stand_for_themselves():
    assert expand("https://example.org/a.csv?x=[1]") == ["https://example.org/a.csv?x=[1]"]
    for refuse in (check_upload, lambda url: upload(None, url)):
        with pytest.raises(ConfigError, match="a web server can't be an output"):
            refuse("https://example.org/a.csv")


def test_the_signature_changes_with_the_object(store):
    _put(f"{store}/a.csv", b"one")
    first = signature(f"{store}/a.csv")
    assert signature(f"{store}/a.csv") == first
    expand(f"{store}/*.csv")  # which may leave a listing in a cache
    assert signature(f"{store}/a.csv") == first
    _put(f"{store}/a.csv", b"two")
    assert signature(f"{store}/a.csv") != first
    assert first.startswith("3-")


def test_uploads_have_a_content_type(s3, tmp_path):
    import s3fs

    (tmp_path / "part-0").write_bytes(b"x")
    for name, type_ in {"a.csv": "text/csv", "a.jsonl": "application/jsonl"}.items():
        upload(tmp_path / "part-0", f"{s3}/{name}")
        assert s3fs.S3FileSystem().info(f"{s3}/{name}", refresh=True)["ContentType"] == type_


def test_an_object_that_is_changed_while_it_is_read(s3):
    _put(f"{s3}/a.csv", b"1,good\n" * 3_000_000)
    with open_remote(f"{s3}/a.csv") as file:
        file.read(100)
        _put(f"{s3}/a.csv", b"2,bad!\n" * 3_000_000)
        with pytest.raises(MlopsDeployError, match="was changed while it was read"):
            file.read()


def test_what_is_not_there(s3, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x")
    nowhere = "s3://no-bucket-of-that-name/a.csv"
    for attempt in (
        lambda: open_remote(f"{s3}/none.csv"),
        lambda: open_remote(nowhere),
        lambda: check_upload(nowhere),
        lambda: upload(tmp_path / "a.csv", nowhere),
    ):
        with pytest.raises(InputError, match=r"^s3://\S+: there is nothing of that name$"):
            attempt()
    assert signature(f"{s3}/none.csv") == ""
    check_upload(f"{s3}/new/a.csv")


def test_no_credentials(s3, monkeypatch):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for attempt in (open_remote, check_upload):
        with pytest.raises(InputError, match="no credentials; set AWS_ACCESS_KEY_ID"):
            attempt(f"{s3}/a.csv")


def test_access_denied(s3, s3_server, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x")
    _put(f"{s3}/a.csv", b"x")

    def free_requests(count):
        request = urllib.request.Request(
            f"{s3_server}/moto-api/reset-auth",
            data=str(count).encode(),
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(request, timeout=5).close()

    free_requests(0)  # from here on the server looks at who asks, and knows no "tester"
    try:
        for attempt in (open_remote, lambda url: upload(tmp_path / "a.csv", url)):
            with pytest.raises(InputError, match="access denied; check the credentials"):
                attempt(f"{s3}/a.csv")
    finally:
        free_requests("inf")


def test_a_server_that_is_not_there(s3, monkeypatch):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(MlopsDeployError, match="can't be reached; check the network"):
        open_remote("s3://bucket/a.csv")


def test_a_missing_package_names_the_extra():
    code = (
        "import sys\n"
        "for name in ('s3fs', 'gcsfs', 'adlfs'): sys.modules[name] = None\n"
        "from mlopsdeploy.data.object_stores import open_remote\n"
        "from mlopsdeploy.errors import ConfigError\n"
        "for kind in ('s3', 'gs', 'az'):\n"
        "    try: open_remote(f'{kind}://b/a.csv')\n"
        "    except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{url}: needs a package: pip install '{package}'"
        for url, package in {
            "s3://b/a.csv": "mlopsdeploy[s3]",
            "gs://b/a.csv": "mlopsdeploy[gs]",
            "az://b/a.csv": "fsspec[az]",
        }.items()
    ]


class _Web(http.server.BaseHTTPRequestHandler):
    """Gives /whole; of /cut, half of what it promises."""

    content = b"id,review\n" + b"1,good\n" * 100_000

    def do_HEAD(self):
        self.send_response(200 if self.path in ("/whole", "/cut") else 404)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.content if self.path == "/whole" else self.content[:300_000])

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    pytest.importorskip("aiohttp")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Web) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_web_server_without_ranges(web):
    with open_remote(f"{web}/whole") as file:
        assert file.read() == _Web.content
    assert signature(f"{web}/whole") == f"{len(_Web.content)}-"
    with pytest.raises(InputError, match="there is nothing of that name"):
        open_remote(f"{web}/none")


def test_a_connection_that_breaks(web):
    with open_remote(f"{web}/cut") as file:
        with pytest.raises(MlopsDeployError, match=rf"^{web}/cut: [^\n]*$"):
            file.read()
