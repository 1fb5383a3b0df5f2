"""Pages, archives of pages and tables give their documents, and what is wrong with one costs no other."""

import gzip

import pytest

from tp_ext.corpus import containers
from tp_ext.corpus.blocks import read
from tp_ext.corpus.files import Form, look_at
from tp_ext.corpus.html import decoded, text_of_page
from tp_ext.errors import CorpusError


def documents(path, form=Form()):  # noqa: B008
    blocks = list(read(look_at(path, form)))
    return [text for block in blocks for text in block.texts()], [fault.kind for block in blocks for fault in block.faults]


PAGE = """<!DOCTYPE html><html><head><meta charset="gbk"><title>标题</title><script>var a = "<p>";</script></head>
<body><nav><a href="/">首页</a></nav><h1>新闻</h1><p>第一段，有<b>粗体</b>和&nbsp;&lt;标签&gt;。<br>第二行
接着。</p><div>第二段<div>里面</div></div><style>p {}</style><ul><li>一<li>二</ul><form>搜索<input></form>
<footer>版权所有</footer></body></html>"""
TEXT = "新闻\n第一段，有粗体和\xa0<标签>。\n第二行 接着。\n第二段\n里面\n一\n二"


def test_the_text_of_a_page_is_a_line_for_each_block():
    assert text_of_page(PAGE) == TEXT
    assert text_of_page("<p>没有结尾<script>坏") == "没有结尾"
    assert text_of_page("<head><title>标题<body><p>正文") == "正文"
    assert text_of_page("") == ""


def test_a_page_is_in_the_encoding_it_names(tmp_path):
    assert decoded(PAGE.encode("gb18030")) == PAGE
    assert decoded("文".encode("big5"), "Big5") == "文"
    (tmp_path / "a.html").write_bytes(PAGE.encode("gb18030"))
    (tmp_path / "b.html").write_bytes("<p>未说明编码".encode("gb18030"))
    assert documents(tmp_path / "a.html") == ([TEXT], [])
    assert documents(tmp_path / "b.html") == ([], ["not JSON"])
    for encoding in ("utf-16", "utf-8-sig"):
        (tmp_path / "c.html").write_bytes(PAGE.encode(encoding))
        assert documents(tmp_path / "c.html") == ([TEXT], [])


@pytest.mark.parametrize("strange", ["<![foo[x]>", "<![ &&&>", "<![if !mso]>", "<![CDATA[x]]>", "<!-x>", "<?x?>", "</#>"])
def test_a_strange_declaration_costs_no_text(strange):
    assert text_of_page(f"<p>前{strange}<p>后") == "前\n后"


@pytest.mark.parametrize("piece", ["<!-- x --!>", "<!-- x >", "<!--", "<![CDATA[ x >", "<![ x", "<?x", "</", "<a ", "<a b="])
@pytest.mark.parametrize("end", ["", "<p>后"])
def test_what_is_repeated_without_an_end_is_read_once(piece, end):
    """Each piece is looked for to the end of the page by html.parser; half a minute and more, were it so."""
    assert text_of_page(f"<p>前{piece * 100_000}{end}").startswith("前")


def test_comments_end_as_in_browsers():
    assert text_of_page("<p>一<!-- > -->二<!-- x --!>三<!-- 没有 > 四") == "一二三 四"
    assert text_of_page("一 < 二 <a href='x") == "一 < 二"


@pytest.mark.parametrize("charset", ["undefined", "idna", "hex", "nope", "x\0y"])
def test_a_strange_encoding_is_a_fault_of_its_page(tmp_path, charset):
    good = response("http://a.cn/", "好")
    bad = response("http://a.cn/", "好", f"text/html; charset={charset}")
    (tmp_path / "a.warc").write_bytes(good + bad + good)
    assert documents(tmp_path / "a.warc") == (["好", "好"], ["not JSON"])


def test_a_page_that_is_too_long_is_a_fault_and_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MOST_PAGE", 1 << 17)
    (tmp_path / "a.html.gz").write_bytes(gzip.compress(b" " * (1 << 20)))
    good = response("http://a.cn/", "好")
    (tmp_path / "a.warc").write_bytes(good + response("http://a.cn/", "长" * (1 << 17)) + good)
    assert documents(tmp_path / "a.html.gz") == ([], ["not JSON"])
    assert documents(tmp_path / "a.warc") == (["好", "好"], ["not JSON"])
    asked = []
    list(containers.page_lines(lambda count: asked.append(count) or bytes(count), "text"))
    assert sum(asked) < 1 << 18


def test_a_number_of_a_character_that_no_number_can_hold_is_a_fault(tmp_path):
    good = response("http://a.cn/", "好")
    (tmp_path / "a.warc").write_bytes(good + response("http://a.cn/", f"&#{'9' * 5000};") + good)
    assert documents(tmp_path / "a.warc") == (["好", "好"], ["not JSON"])


def record(kind, url, content):
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content + b"\r\n\r\n"


def response(url, text, kind="text/html; charset=utf-8"):
    return record("response", url, f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n<p>{text}".encode())


@pytest.mark.parametrize(("name", "pack"), [("a.warc", bytes), ("a.warc.gz", gzip.compress)])
def test_responses_of_an_archive_are_documents(tmp_path, name, pack):
    records = [record("warcinfo", "", b"software: x"), response("http://a.cn/1", "第一页"),
               record("request", "http://a.cn/1", b"GET"), response("http://a.cn/2", "图", "image/png"),
               response("http://a.cn/3", "第三页" * 30000)]  # fmt: skip
    (tmp_path / name).write_bytes(b"".join(map(pack, records)))
    assert documents(tmp_path / name) == (["第一页", "第三页" * 30000], [])
    values = [value for block in read(look_at(tmp_path / name)) for value in block.values(["url"])]
    assert values == [{"url": "http://a.cn/1"}, {"url": "http://a.cn/3"}]


def test_a_bad_record_costs_no_other(tmp_path):
    good = [response(f"http://a.cn/{number}", f"第{number}页") for number in range(9)]
    bad = [b"WARC/1.0\r\nContent-Length: many\r\n\r\nrubbish\r\n\r\n", b"rubbish" * 20000 + b"\r\n",
           response("http://a.cn/x", "x").replace(b"utf-8", b"utf-9")]  # fmt: skip
    records = [*good[:3], bad[0], *good[3:5], bad[1], *good[5:7], bad[2], *good[7:]]
    (tmp_path / "a.warc").write_bytes(b"".join(records)[:-9])
    found, faults = documents(tmp_path / "a.warc")
    assert found == [f"第{number}页" for number in range(8)]
    assert faults == ["not JSON"] * 4


@pytest.mark.parametrize("length", ["", "²", "٣", "-3", "9" * 5000, "1e3", "300000000"])
def test_a_length_that_is_none_costs_one_record(tmp_path, length):
    good = response("http://a.cn/", "好")
    (tmp_path / "a.warc").write_bytes(good + f"WARC/1.0\r\nContent-Length: {length}\r\n\r\nrubbish\r\n".encode() + good)
    assert documents(tmp_path / "a.warc") == (["好", "好"], ["not JSON"])


def test_a_record_cut_short_is_one_fault_whatever_its_name(tmp_path):
    (tmp_path / "a.warc").write_bytes(response('http://a.cn/\n{"text": "名"}', "好")[:-9])
    assert documents(tmp_path / "a.warc") == ([], ["not JSON"])


def test_a_column_of_bytes_is_no_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": [b"a", b"b"]}), tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet") == ([], ["text not a string"] * 2)


def test_rows_of_a_table_are_documents(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"content": ["一", None, "三"] * 400, "id": list(range(1200)), "tags": [["a"]] * 1200})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet", Form(text_key="content")) == (["一", "三"] * 400, ["text not a string"] * 400)
    with pytest.raises(CorpusError, match="has no column 'text', but content, id, tags"):
        documents(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-50])
    with pytest.raises(CorpusError, match="cannot be read as parquet"):
        documents(tmp_path / "b.parquet", Form(text_key="content"))
