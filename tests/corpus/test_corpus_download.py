"""Downloads from a local server: checked, resumed, whole or absent, refused offline."""

from __future__ import annotations

import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from warmstart.corpus.data_files import DataFile
from warmstart.corpus.download import download
from warmstart.corpus.named import bible, dictionary
from warmstart.foundation.errors import UserError

BODY = bytes(range(256)) * 2000
RIGHT = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """Serves `server.files`; `server.break_after` bytes it hangs up; `server.ranges` says if it resumes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(self.headers.get("Range"))
            body = server.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            wanted = self.headers.get("Range")
            start = int(wanted.split("=")[1].rstrip("-")) if wanted and server.ranges else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:][: server.break_after])

        def log_message(self, *arguments):
            pass

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.break_after, server.ranges = {"/a.bin": BODY}, [], None, True
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once(server, tmp_path):
    target = tmp_path / "deep" / "a.bin"
    for _ in range(2):
        assert download(f"{server.url}/a.bin", RIGHT, target).read_bytes() == BODY
    assert len(server.requests) == 1
    assert [path.name for path in target.parent.iterdir() if not path.name.startswith(".")] == ["a.bin"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_continued(server, tmp_path, ranges):
    server.break_after, server.ranges = 200_000, ranges
    target = tmp_path / "a.bin"
    with pytest.raises(UserError, match=r"could not be downloaded.*try again \(what arrived is kept\)"):
        download(f"{server.url}/a.bin", RIGHT, target)
    assert not target.exists()
    assert (tmp_path / "a.bin.part").read_bytes() == BODY[:200_000]
    server.break_after = None
    assert download(f"{server.url}/a.bin", RIGHT, target).read_bytes() == BODY
    assert server.requests == [None, "bytes=200000-"]


def test_wrong_bytes_are_thrown_away(server, tmp_path):
    target = tmp_path / "a.bin"
    with pytest.raises(UserError, match=f"SHA-256 {RIGHT[:12]}.*expected 000000000000"):
        download(f"{server.url}/a.bin", "0" * 64, target)
    assert not target.exists() and not (tmp_path / "a.bin.part").exists()


def test_a_part_of_something_else_heals(server, tmp_path):
    target = tmp_path / "a.bin"
    (tmp_path / "a.bin.part").write_bytes(b"x" * (len(BODY) + 5))
    with pytest.raises(UserError, match="SHA-256"):
        download(f"{server.url}/a.bin", RIGHT, target)
    assert download(f"{server.url}/a.bin", RIGHT, target).read_bytes() == BODY


def test_a_changed_file_is_fetched_again(server, tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"changed")
    assert download(f"{server.url}/a.bin", RIGHT, target).read_bytes() == BODY


def test_what_the_server_does_not_have(server, tmp_path):
    with pytest.raises(UserError, match=r"b\.bin could not be downloaded \(Not Found\)"):
        download(f"{server.url}/b.bin", RIGHT, tmp_path / "b.bin")
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="refused"):
        download(f"{server.url}/a.bin", RIGHT, tmp_path / "a.bin")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_nothing_is_asked_for_when_offline(server, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(
        UserError, match=r"network is switched off.*set WARMSTART_DATA to a folder with set/a"
    ):
        download(f"{server.url}/a.bin", RIGHT, tmp_path / "a.bin", name="set/a.bin")
    assert server.requests == []


def test_a_data_file_is_local_first_then_downloaded_with_the_same_fingerprint(server, tmp_path, monkeypatch):
    from warmstart.corpus.reading import files_digest

    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WARMSTART_DATA", raising=False)
    server.files["/origin.txt"] = b"some text\n"
    checksum = hashlib.sha256(b"some text\n").hexdigest()
    file = DataFile("set", "local.txt.gz", (f"{server.url}/origin.txt",), checksum)
    fetched = files_digest([file.locate()])
    data = tmp_path / "data" / "set"
    data.mkdir(parents=True)
    (data / "local.txt.gz").write_bytes(gzip.compress(b"some text\n"))
    monkeypatch.setenv("WARMSTART_DATA", str(tmp_path / "data"))
    assert file.locate().path == data / "local.txt.gz"
    assert files_digest([file.locate()]) == fetched
    (data / "local.txt.gz").rename(data / "gone")
    (data / "local.txt").write_bytes(b"some text\n")
    assert files_digest([file.locate()]) == fetched, "plain will do where .gz is the usual form"


OSIS = """<?xml version='1.0'?><osis xmlns='http://www.bibletechnologies.net/2003/OSIS/namespace'><div>
<chapter osisID='Matt.1'><verse osisID='Matt.1.1'>The <b>book</b>
 of names.</verse><verse osisID='Matt.1.2'>Next.</verse><verse osisID='Matt.1.3'> </verse></chapter></div>
</osis>"""
CES = """<?xml version="1.0"?><cesDoc><seg id="b.MAT.1.1" type="verse">
   Yesu Kristo
</seg><seg id="b.MAT.1.2" type="verse"/></cesDoc>"""


def test_converted_files_are_checked_after_conversion(server, tmp_path, monkeypatch):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path))
    server.files |= {"/matt.xml": OSIS.encode(), "/Swa.xml": CES.encode()}
    expected = "MAT.1.1\tThe book of names.\nMAT.1.2\tNext.\n"
    checksum = hashlib.sha256(expected.encode()).hexdigest()
    file = DataFile("bible", "x.tsv.gz", (f"{server.url}/matt.xml",), checksum, bible.verses_of_osis)
    assert file.locate().path.read_text() == expected
    assert file.locate().id == "x.tsv.gz"
    assert len(server.requests) == 1, "converted once"
    wrong = DataFile("bible", "y.tsv.gz", (f"{server.url}/Swa.xml",), checksum, bible.verses_of_ces)
    with pytest.raises(UserError, match="not what it was"):
        wrong.locate()
    assert not (tmp_path / "data" / "bible" / "y.tsv").exists()
    assert bible.verses_of_ces([_file(tmp_path / "s.xml", CES)]) == "MAT.1.1\tYesu Kristo\n"


def test_dictionary_conversion(tmp_path):
    path = _file(tmp_path / "fi.txt", "dog\tkoira\nplastic  wrap\tmuovi\n")
    assert dictionary.entries([path]) == "dog\tkoira\nplastic wrap\tmuovi\n"
    assert dictionary.entries([path], single_words=True) == "dog\tkoira\n"


def _file(path, text):
    path.write_text(text)
    return path
