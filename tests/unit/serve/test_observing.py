"""Metrics and the access log."""

import io
import json

from servegraph.serve.access_log import AccessLog
from servegraph.serve.http import Request, Response
from servegraph.serve.metrics import Metrics
from servegraph.serve.repository import Repository
from servegraph.serve.routes import Route

PREDICT = Route("predict", "half")
REQUEST = Request(b"POST", b"/v1/models/half:predict", {b"x-request-id": b"7"}, b"secret")


class Loaded:
    load = (3, 1)
    signatures = {}


def test_answers_are_counted_by_model_method_and_status(tmp_path):
    (tmp_path / "half" / "1").mkdir(parents=True)
    (tmp_path / "half" / "1" / "saved_model.pb").write_bytes(b"")
    repository = Repository(tmp_path, lambda directory: Loaded())
    repository.refresh()
    metrics = Metrics(repository)
    metrics.observe(REQUEST, Response(200, b"answer", route=PREDICT), 0.004, "")
    metrics.observe(REQUEST, Response(200, b"answer", route=PREDICT), 0.004, "")
    metrics.observe(REQUEST, Response(400, b"", route=PREDICT), 0.001, "")
    for name in ("no", "neither", "nor"):  # names that callers make up are no labels
        metrics.observe(REQUEST, Response(404, b"", route=Route("predict", name)), 0.001, "")
        metrics.observe(REQUEST, Response(405, b"", route=Route("predict", name)), 0.001, "")
    text = metrics.text().decode()
    assert 'servegraph_requests_total{code="200",method="predict",model="half"} 2.0' in text
    assert 'servegraph_requests_total{code="400",method="predict",model="half"} 1.0' in text
    assert 'servegraph_requests_total{code="404",method="none",model=""} 3.0' in text
    assert 'servegraph_request_seconds_bucket{le="0.005",method="predict",model="half"} 3.0' in text
    assert 'servegraph_body_bytes_total{direction="received"} 54.0' in text
    assert 'servegraph_waiting_requests{model="half",version="1"} 3.0' in text
    assert 'servegraph_version_state{model="half",state="AVAILABLE",version="1"} 1.0' in text
    assert "neither" not in text


def test_the_access_log_is_json_lines_without_bodies():
    stream = io.StringIO()
    log = AccessLog(stream)
    log.observe(REQUEST, Response(200, b"answer", route=PREDICT), 0.0042, "127.0.0.1")
    log.observe(Request(b"GET", b"/" + b"\xff" * 9999, {}, b""), Response(404, b"{}"), 0.1, "")
    log.close()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/models/half:predict",
        "status": 200,
        "ms": 4.2,
        "bytes_in": 6,
        "bytes_out": 6,
        "model": "half",
        "request_id": "7",
    }
    assert len(second["path"]) == 512
    assert "secret" not in stream.getvalue()
