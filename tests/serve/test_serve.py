"""The completion server, asked by OpenAI's own client and looked at in a browser."""

import json
import shutil
import socket
import threading
import urllib.error
import urllib.request

import pytest
from conftest import command, make_texts
from models_on_disk import make_model

from tp_ext.errors import ConfigError
from tp_ext.infer import load
from tp_ext.serve.server import Server


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("models")
    return {
        "base": load(make_model(folder / "base", "llama", tokenizer)),
        "continued": load(make_model(folder / "continued", "groups", tokenizer)),
    }


@pytest.fixture(params=[None, "secret token"])
def server(request, models):
    with Server(models, "127.0.0.1", 0, request.param) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server, values=None, path="v1/completions", **headers):
    if server.token:
        headers.setdefault("Authorization", f"Bearer {server.token}")
    content = None if values is None else values if isinstance(values, bytes) else json.dumps(values).encode()
    request = urllib.request.Request(server.url + path, content, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


PROMPT = make_texts(3, 5)[0]


def test_a_completion_is_what_generate_gives(server, models):
    for name, model in models.items():
        status, answer = ask(server, {"model": name, "prompt": PROMPT, "max_tokens": 12, "temperature": 1.0, "seed": 7})
        assert status == 200
        assert answer["choices"][0]["text"] == model.generate([PROMPT], max_new_tokens=12, temperature=1.0, seed=7)[0]
        assert answer["usage"]["completion_tokens"] == 12
        assert answer["usage"]["prompt_tokens"] == len(model.tokenizer.encode(PROMPT)) + 1
        ids = [model.tokenizer.bos_id, *model.tokenizer.encode(PROMPT)]
        again = ask(server, {"model": name, "prompt": ids, "max_tokens": 12, "temperature": 1.0, "seed": 7})[1]
        assert again["choices"][0]["text"] == answer["choices"][0]["text"]


def test_a_text_to_stop_at_is_never_told(server, models):
    whole = models["base"].generate([PROMPT], max_new_tokens=20, temperature=1.0, seed=7)[0]
    stop = whole[6:9]
    asked = {"model": "base", "prompt": PROMPT, "max_tokens": 20, "temperature": 1.0, "seed": 7, "stop": [stop]}
    answer = ask(server, asked)[1]
    assert answer["choices"][0] == {"index": 0, "text": whole[: whole.index(stop)], "logprobs": None,
                                    "finish_reason": "stop"}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "status", "expected"),
    [
        (b"{", 400, "is not JSON"),
        (b"[]", 400, "is not a JSON object"),
        ({"model": "base"}, 400, "request.prompt: expected one text"),
        ({"model": "nobody", "prompt": "x"}, 404, "no model named 'nobody'. Known: base, continued"),
        ({"model": "base", "prompt": ["a", "b"]}, 400, "request.prompt: expected one text"),
        ({"model": "base", "prompt": [10**9]}, 400, "from 0 to 499"),
        ({"model": "base", "prompt": "x", "max_tokens": 10**9}, 400, "is not from 1 to 4096"),
        ({"model": "base", "prompt": "x", "max_tokens": 1000}, 400, "the model was made for 256"),
        ({"model": "base", "prompt": "x", "temperature": -1}, 400, "temperature is -1"),
        ({"model": "base", "prompt": "x", "n": 2}, 400, "request.n: 2 is not supported"),
        ({"model": "base", "prompt": "x", "temprature": 1}, 400, "Did you mean 'temperature'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(server, values, status, expected):
    found, answer = ask(server, values)
    assert found == status
    assert expected in answer["error"]["message"]


def test_strangers_are_refused(server):
    asked = {"model": "base", "prompt": "x", "max_tokens": 1}
    if server.token:
        assert ask(server, asked, Authorization="Bearer x")[0] == 401
        assert ask(server, path="v1/models", Authorization="")[0] == 401
    else:
        assert ask(server, asked, Host="example.org")[0] == 403
        assert ask(server, asked, Origin="http://example.org")[0] == 403
    with socket.create_connection(server.server_address[:2]) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        assert b" 4" in connection.recv(100)


def test_others_are_never_served_without_a_token(models):
    with pytest.raises(ConfigError, match="others can reach the server there; set a token"):
        Server(models, "0.0.0.0", 0, None)


def test_the_command_refuses_it_too(tmp_path, tokenizer):
    path = make_model(tmp_path / "m", "llama", tokenizer)
    done = command("scripts/serve.py", "--model", path, "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    assert "set a token" in done.stderr


def test_openais_client(models):
    openai = pytest.importorskip("openai")
    with Server(models, "127.0.0.1", 0, "secret") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = openai.OpenAI(base_url=f"{server.url}v1", api_key="secret")
        assert [each.id for each in client.models.list()] == ["base", "continued"]
        expected = models["base"].generate([PROMPT], max_new_tokens=16, temperature=1.0, seed=7)[0]
        asked = {"model": "base", "prompt": PROMPT, "max_tokens": 16, "temperature": 1.0, "seed": 7}
        assert client.completions.create(**asked).choices[0].text == expected
        pieces = [chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)]
        assert "".join(pieces) == expected
        assert len(pieces) > 4
        stopped = client.completions.create(**asked, stream=True, stop=expected[5:8])
        assert "".join(chunk.choices[0].text for chunk in stopped) == expected[: expected.index(expected[5:8])]
        with pytest.raises(openai.AuthenticationError, match="a token is needed"):
            openai.OpenAI(base_url=f"{server.url}v1", api_key="wrong").models.list()
        with pytest.raises(openai.NotFoundError, match="no model named"):
            client.completions.create(model="nobody", prompt="x")
        server.shutdown()


@pytest.mark.frontends
@pytest.mark.parametrize("token", [None, "secret"])
def test_the_page_in_a_browser(models, token):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium here")
    with Server(models, "127.0.0.1", 0, token) as server, playwright.sync_playwright() as play:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 380, "height": 800})
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(server.url)
        page.fill("[name=prompt]", PROMPT)
        page.fill("[name=max_tokens]", "16")
        page.fill("[name=temperature]", "0")
        page.fill("[name=top_p]", "1")
        page.fill("[name=repetition_penalty]", "1")
        if token:
            page.click("#go")
            page.wait_for_selector(".said.wrong")
            assert "a token is needed" in page.inner_text("[data-model=base] .said")
            page.fill("[name=token]", token)
        page.click("#go")
        for name, model in models.items():
            page.wait_for_selector(f"[data-model={name}] .said:has-text('tokens,')")
            found = page.evaluate(f"document.querySelector('[data-model={name}] .added').textContent")
            assert found == model.generate([PROMPT], max_new_tokens=16)[0]
        assert faults == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
        browser.close()
        server.shutdown()
