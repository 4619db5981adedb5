"""Upload a folder of images to a bucket, and create the bucket if needed: `python tools/upload.py DIR s3://bucket/prefix`.

Address and keys come from the environment: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.store.s3 import client, explained, retried, side_by_side, split
from shared.system.errors import UserError


def upload(folder: Path, uri: str) -> int:
    """Send every file below `folder`, hidden ones excepted, to `uri` under its relative path; return their number."""
    bucket, prefix = split(uri.rstrip("/"))
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise UserError(f"{folder}: no files; give a folder of images")

    def send(name: Path) -> None:
        key = "/".join([*prefix.split("/"), *name.parts]).lstrip("/")
        retried(lambda: client().fput_object(bucket, key, str(folder / name)), patient=True)

    with explained(uri):
        if not client().bucket_exists(bucket):
            client().make_bucket(bucket)
        side_by_side(send, names)
    return len(names)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/upload.py DIR s3://bucket/prefix")
    try:
        print(f"{upload(Path(sys.argv[1]), sys.argv[2])} files in {sys.argv[2]}")
    except UserError as error:
        sys.exit(f"error: {error}")
