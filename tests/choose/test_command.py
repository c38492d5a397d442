"""The whole command: answers in; text, JSON, page and config out."""

import json
import re
from html.parser import HTMLParser

import pytest

from mlopsdeploy.choose import page
from mlopsdeploy.choose.assumptions import measurements
from mlopsdeploy.choose.command import run_choose
from mlopsdeploy.choose.decide import decide
from mlopsdeploy.choose.factors import FACTORS
from mlopsdeploy.choose.settings import STRATEGIES, ChooseSettings
from mlopsdeploy.errors import ConfigError, InputError

EVIL = "<script>alert(1)</script>"


def test_without_a_model_it_says_what_is_assumed(capsys):
    report = run_choose(ChooseSettings(), ask=False)
    out = capsys.readouterr().out
    assert out.startswith("serve: a service\nno model was named: speeds are those of the built-in")
    assert "mlopsdeploy choose --model fraud --sample examples/transactions.csv" in out
    assert "price_per_hour 0.0416 USD: AWS t3.medium" in out
    for factor in FACTORS:
        assert f"  · {factor}: " in out
    assert report["assumed"]["serve_upkeep"]["value"] == 4


def test_what_the_user_said_is_not_assumed():
    report = run_choose(ChooseSettings(price_per_hour=1, devices=0), ask=False, quiet=True)
    assert "price_per_hour" not in report["assumed"]
    assert "device_price" not in report["assumed"]


@pytest.mark.parametrize("data", ["table", "text", "pictures"])
def test_everything_is_json(data, capsys):
    report = run_choose(ChooseSettings(data=data, data_at="device"), ask=False, quiet=True)
    assert capsys.readouterr().out == ""
    again = json.loads(json.dumps(report, allow_nan=False))
    assert set(again["strategies"]) == set(STRATEGIES)
    for option in again["strategies"].values():
        assert option["total"] == pytest.approx(option["machine_cost"] + option["upkeep_cost"])
        for cell in option["factors"].values():
            assert cell["arithmetic"]
    assert again["changes"]


def test_not_on_a_terminal_it_never_asks(monkeypatch):
    def never():
        raise AssertionError("asked")

    monkeypatch.setattr("mlopsdeploy.choose.command.interview", never)
    assert run_choose(ChooseSettings(), ask=True, quiet=True)["recommended"] == "serve"


def test_a_sample_without_a_model_is_refused():
    with pytest.raises(ConfigError, match="--sample: of which model"):
        run_choose(ChooseSettings(sample="a.csv"), ask=False)


def test_files_are_written_and_places_are_checked_first(tmp_path, capsys):
    config, html = tmp_path / "serve.yaml", tmp_path / "choose.html"
    settings = ChooseSettings(write_config=str(config), report=str(html))
    report = run_choose(settings, ask=False, quiet=True)
    assert config.read_text("utf-8") == report["config"]
    assert html.stat().st_size > 10_000
    assert "mlopsdeploy serve --config" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"serve\.yaml: is there already"):
        run_choose(settings, ask=False, quiet=True)
    html.write_text("<html>mine</html>", "utf-8")
    with pytest.raises(ConfigError, match=r"choose\.html: is there already"):
        run_choose(ChooseSettings(report=str(html)), ask=False, quiet=True)
    run_choose(settings.replace(overwrite=True), ask=False, quiet=True)
    run_choose(ChooseSettings(report=str(html)), ask=False, quiet=True)  # its own
    with pytest.raises(InputError, match="there is no folder"):
        run_choose(ChooseSettings(report=str(tmp_path / "no" / "a.html")), ask=False)


# ---------------------------------------------------------------- the page


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.urls, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.urls += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "link", "br", "path", "rect", "circle", "use", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "rect", "circle", "use"):
            assert self.open.pop() == tag


def rendered(config="models: []", **answers):
    settings = ChooseSettings(**answers)
    found = measurements("table")
    decision = decide(settings, found)
    return page.render(settings, found, decision, config), decision


def test_the_page_holds_every_number_is_well_formed_and_needs_nothing_else():
    text, decision = rendered(data_at="device")
    plain = re.sub(r"\s+", " ", text)
    cells = [cell for option in decision.options for cell in option.cells.values()]
    for part in (*(cell.says for cell in cells), *(cell.arithmetic for cell in cells)):
        assert part in plain
    for change in decision.changes:
        assert change.words in plain
    parsed = Page(text)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert all(url.startswith(("#", "data:")) for url in parsed.urls)
    assert "default-src 'none'" in text
    assert not re.search(r"#0[1-4]0[1-4]0\d", text)  # colours that stand for variables


def test_the_page_is_safe_with_whatever_a_user_says():
    text, _ = rendered(config=EVIL, currency="<b>EUR", model=EVIL, sample=EVIL)
    assert EVIL not in text
    assert "<b>EUR" not in text


def test_the_page_where_nothing_fits():
    text, decision = rendered(may_leave=False)
    assert decision.recommended is None
    assert "None of the three fits." in text
    Page(text)
