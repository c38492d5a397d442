"""What the benches measure of models with every kind of input and answer."""

import json

import pytest

from mlopsdeploy.bench import edge_lines, serve, speed
from mlopsdeploy.columns import rows_of
from mlopsdeploy.edge.lines.parsing import parser_for
from mlopsdeploy.edge.lines.sources import Line
from mlopsdeploy.settings import EdgeSettings, ServeSettings

from .. import kinds


@pytest.mark.parametrize("make", kinds.ALL)
def test_a_request_that_is_made_up_is_taken(make, monkeypatch):
    model = make()
    monkeypatch.setattr(serve.server, "load_models", lambda _: {"made": model})
    monkeypatch.setattr(serve, "PARTS_SECONDS", 0.0)
    parts = serve.Parts(ServeSettings(models="made"), None)
    assert parts.measure()["model"] > 0


@pytest.mark.parametrize("make", [one for one in kinds.ALL if "picture" not in one.__name__])
def test_lines_of_made_up_rows(make, tmp_path):
    model = make()
    columns = speed.made_up_rows(model, 5)
    assert rows_of(columns) == 5
    rows = [{name: values[row].tolist() if hasattr(values[row], "tolist") else values[row]
             for name, values in columns.items()} for row in range(5)]  # fmt: skip
    matrix = model.task.matrix
    texts = [json.dumps(row.get(matrix.name, row) if matrix else row) for row in rows]
    assert parser_for(model)(texts).problems == {}
    sample = [Line(place, text.encode(), 0.0, 0.0) for place, text in enumerate(texts, 1)]
    bench = edge_lines._Bench(model, EdgeSettings(lines="x"), sample)
    alone = bench.one_at_a_time(str(tmp_path / "e.jsonl"), 0.0)
    bench.bare.run(0.0)
    together = bench.all_at_once(str(tmp_path / "e.jsonl"), 0.05)
    assert alone["lines_per_second"] > 0
    assert together["lines"] >= 1
