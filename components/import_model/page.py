"""Build the page of `import_model`: where the model comes from, how it was made, and what it is."""

import json

from pydantic import BaseModel

from shared.artifacts.manifest import Manifest
from shared.reporting.page import Page


def make_page(source: str, manifest: Manifest, config: BaseModel) -> Page:
    """Show the lineage that the model's `artifact.json` records, and its config."""
    page = Page("import_model")
    page.text(f"Imported from {source}, every file verified by its sha256.")
    made = {"content digest": manifest.digest, "made by stage": manifest.stage, "code version": manifest.code_version}
    made |= {f"made from {name}": digest for name, digest in manifest.inputs.items()}
    made |= {f"parameter {name}": json.dumps(value) for name, value in manifest.parameters.items()}
    page.heading("How it was made")
    page.table(["", ""], [[name, value] for name, value in made.items() if value])
    page.heading("Config")
    page.code(json.dumps(config.model_dump(mode="json", exclude={"postprocessing"}), indent=1))
    return page
