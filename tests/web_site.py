"""A web server of the test itself."""

import contextlib
import http.server
import threading
from collections.abc import Iterator


class Site:
    """What the server answers, by path: a body, and headers over the usual ones."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: dict[str, tuple[bytes, dict[str, str], int]] = {}
        self.requests: list[str] = []

    def put(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        """Serve `body`; its URL."""
        self.pages[path] = body, {key.replace('_', '-'): value for key, value in headers.items()}, status
        return self.url + path


@contextlib.contextmanager
def running_site() -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = self.path.partition('?')[0]
            site.requests.append(path)
            if path not in site.pages:
                self.send_error(404)
                return
            body, headers, status = site.pages[path]
            self.send_response(status)
            usual = {'Content-Type': 'application/octet-stream', 'Content-Length': str(len(body))}
            for key, value in (usual | headers).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == 'GET':
                self.wfile.write(body)

        def log_message(self, *args) -> None:
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        site = Site(f'http://127.0.0.1:{server.server_port}')
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield site
        finally:
            server.shutdown()
