"""A server that treats `handler.py` as the container of Inference Endpoints does, for tests: `python endpoint_server.py FOLDER`.

It follows huggingface-inference-toolkit (its webservice, serialisers and loading of handlers): the handler is loaded by its path with
the folder on `sys.path`; `image/*` bodies become PIL images in RGB, JSON bodies are taken as they are, other types are refused; the
answer is JSON with PIL images as base64 PNG, or PNG bytes where the client asks for `image/png`; every error is status 400 with
`{"error": ...}`. The package itself cannot be imported here.
"""

import base64
import importlib.util
import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.modules["echocare_hf"] = None  # the endpoint has no such package

from PIL import Image  # noqa: E402

PICTURES = {f"image/{name}" for name in ("png", "jpeg", "jpg", "tiff", "bmp", "gif", "webp", "x-image")}
JSON = {"application/json", "application/json; charset=UTF-8"}


def load_handler(folder):
    spec = importlib.util.spec_from_file_location("custom_handler", Path(folder) / "handler.py")
    sys.path.insert(0, str(folder))
    module = importlib.util.module_from_spec(spec)
    sys.modules["custom_handler"] = module
    spec.loader.exec_module(module)
    return module.EndpointHandler(str(folder))


def deserialize(content_type, body):
    if content_type in PICTURES:
        return {"inputs": Image.open(io.BytesIO(body)).convert("RGB")}
    if content_type in JSON:
        return json.loads(body)
    raise ValueError(f'Content type "{content_type}" not supported.')


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def as_json(value):
    if isinstance(value, Image.Image):
        return base64.b64encode(png(value)).decode()
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")


def serialize(prediction, accept):
    if accept in (None, "*/*"):
        accept = "application/json"
    if accept in PICTURES:
        if not isinstance(prediction, Image.Image):
            raise ValueError(f"Can only serialize PIL.Image.Image, got {type(prediction)}")
        return png(prediction), accept
    if accept in JSON:
        return json.dumps(prediction, default=as_json, allow_nan=False).encode(), accept
    raise ValueError(f'Accept type "{accept}" not supported.')


class Endpoint(BaseHTTPRequestHandler):
    handlers: dict = {}  # by path: "/<name of the folder>"

    def do_POST(self):
        try:
            body = deserialize(
                self.headers.get("Content-Type"), self.rfile.read(int(self.headers.get("Content-Length") or 0))
            )
            if "inputs" not in body:
                raise ValueError(f"Body needs to provide a inputs key, received: {json.dumps(body)}")
            content, kind = serialize(self.handlers[self.path](body), self.headers.get("Accept"))
            status = 200
        except Exception as error:
            content, kind, status = json.dumps({"error": str(error)}).encode(), "application/json", 400
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        """Quiet."""


if __name__ == "__main__":
    Endpoint.handlers = {f"/{Path(folder).name}": load_handler(folder) for folder in sys.argv[1:]}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    print(f"PORT {server.server_port}", flush=True)
    server.serve_forever()
