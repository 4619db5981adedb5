"""Upload a folder of images to a bucket, and create the bucket if needed: `python tools/upload.py DIR s3://bucket/prefix`.

Address and keys come from the environment: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.store.connection import client
from shared.store.environment import split_uri
from shared.store.failures import translated_errors
from shared.store.retries import with_retries
from shared.store.transfer import run_parallel
from shared.system.errors import UserError


def upload(folder: Path, uri: str) -> int:
    """Send every file below `folder`, hidden ones excepted, to `uri` under its relative path; return their number."""
    bucket, prefix = split_uri(uri.rstrip("/"))
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise UserError(f"{folder}: no files; give a folder of images")

    def send(name: Path) -> None:
        key = "/".join([*prefix.split("/"), *name.parts]).lstrip("/")
        with_retries(lambda: client().fput_object(bucket, key, str(folder / name)), wait_for_server=True)

    with translated_errors(uri):
        if not client().bucket_exists(bucket):
            client().make_bucket(bucket)
        run_parallel(send, names)
    return len(names)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/upload.py DIR s3://bucket/prefix")
    try:
        print(f"{upload(Path(sys.argv[1]), sys.argv[2])} files in {sys.argv[2]}")
    except UserError as error:
        sys.exit(f"error: {error}")
