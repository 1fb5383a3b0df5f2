"""JSON arrays as lines, compared with a streaming parser, however they are cut and indented."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tp_ext.corpus.arrays import ArrayLines
from tp_ext.corpus.blocks import read
from tp_ext.corpus.files import Form, look_at

LAYOUTS = ({}, {"indent": 4}, {"ensure_ascii": False, "indent": 0}, {"separators": (",", ":")}, {"indent": "\t"})
TEXT = st.text(st.sampled_from('ab"\\{}[],:\n\t 中文'), max_size=30)
MORE = st.lists(st.fixed_dictionaries({"a": TEXT}))
ITEMS = st.lists(st.fixed_dictionaries({"content": TEXT}, optional={"more": MORE}), max_size=6)


def lines_of(content, size):
    read_lines, found = ArrayLines(io.BytesIO(content).read), b""
    while piece := read_lines(size):
        found += piece
    return found


@given(ITEMS, st.sampled_from(LAYOUTS), st.integers(1, 80))
def test_every_object_is_a_line_wherever_the_array_is_cut(items, layout, size):
    content = json.dumps(items, **layout).encode()
    found = lines_of(content, size)
    assert [json.loads(line) for line in found.split(b"\n") if line.strip()] == items
    assert found == lines_of(content, 1 << 20)


@given(ITEMS, st.sampled_from(LAYOUTS))
def test_it_finds_what_a_streaming_parser_finds(items, layout):
    ijson = pytest.importorskip("ijson")
    content = json.dumps(items, **layout).encode()
    assert [json.loads(line) for line in lines_of(content, 100).split(b"\n") if line.strip()] == list(
        ijson.items(io.BytesIO(content), "item")
    )


def test_places_in_the_array_are_places_in_the_file(tmp_path):
    path, texts = tmp_path / "part-1.json", [f"第{number}条" * 50 for number in range(300)]
    path.write_text(json.dumps([{"id": 1, "content": text, "title": "t"} for text in texts], ensure_ascii=False, indent=4))
    content, blocks = path.read_bytes(), list(read(look_at(path, Form(text_key="content"))))
    assert [text for block in blocks for text in block.texts()] == texts
    for text, offset in zip(texts, [place for block in blocks for place in block.documents.offsets.tolist()], strict=True):
        begins = content.index(b'"content"', offset) + len(b'"content": "')
        assert content[begins:].startswith(text.encode())
    assert [value for block in blocks for value in block.values(["title", "url"])] == [{"title": "t"}] * 300
