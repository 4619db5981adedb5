"""Images of a run, chosen and drawn."""

import shutil
from pathlib import Path

import numpy as np
from finished_run import labelled

from pipelines.reporting.pictures.class_rows import class_rows
from pipelines.reporting.pictures.panels import compare_masks, galleries, predictions_of
from pipelines.reporting.pictures.run_artifacts import RunArtifacts
from pipelines.run_folder.record import OutputRecord, RunRecord, TaskRecord
from shared.artifacts.annotation import Annotation, ImageClass
from shared.artifacts.kinds import LabelSet
from shared.artifacts.label_set import NOTE_HAND_LABELLED, LabelWriter
from shared.artifacts.manifest import seal
from shared.imaging.overlays import PREDICTION_COLOUR


def test_artifacts_are_found_by_kind_and_origin(finished):
    run, record = finished
    found = RunArtifacts(run, record)
    assert found.images.keys() == ["a", "b"] and found.truth.keys() == ["b"]
    assert found.predictions.keys() == ["a", "b"] and found.predicted() == {"a", "b"}
    assert list(found.pseudo) == [f"em-{i}/{name}" for i in (0, 1) for name in ("cluster", "refine-masks")]


def test_artifacts_of_tasks_that_are_not_done_or_passed_through_are_left_out(finished):
    run, record = finished
    early = record.model_copy(deep=True)
    early.tasks["infer"].state = "running"
    early.tasks["em-1/cluster"].skipped = "the loop is over"
    found = RunArtifacts(run, early)
    assert found.predictions is None and found.predicted() == set() and "em-1/cluster" not in found.pseudo
    assert galleries(run, RunRecord(pipeline="nothing")) == []


def test_labelled_images_are_first(finished):
    shown = galleries(*finished)
    assert [gallery.key for gallery in shown] == ["b", "a"]
    assert [len(gallery.overview) for gallery in shown] == [3, 2]  # input, prediction, truth
    for gallery in shown:
        for image, caption in [*gallery.overview, *(crop for row in gallery.crops for crop in row)]:
            assert image.dtype == np.uint8 and image.shape[2] == 3 and caption


def test_rows_of_an_image_that_was_learned_from(finished):
    first, *rows = galleries(*finished)[1].crops
    assert [caption for _, caption in first][1:] == ["em-0/cluster: cluster", "em-1/cluster: cluster", "prediction"]
    assert [[caption for _, caption in row] for row in rows] == [
        ["em-0/cluster", "em-1/cluster"],
        ["em-0/refine-masks", "em-1/refine-masks"],
    ]


def test_ignored_pixels_are_tinted(finished):
    run, record = finished
    gallery = galleries(run, record)[1]
    refined = gallery.crops[2][0][0].astype(int)
    ignored = RunArtifacts(run, record).pseudo["em-0/refine-masks"].conf("a") == 0
    orange = (refined[..., 0] > refined[..., 1]) & (refined[..., 1] > refined[..., 2])
    assert 0 < ignored.mean() < 1 and orange[ignored].all() and not orange[~ignored].any()


def test_images_whose_labels_were_learned_from_are_shown_last(finished, tmp_path):
    run = tmp_path / "learned"
    shutil.copytree(finished[0], run)
    record = finished[1].model_copy(deep=True)
    artifacts = RunArtifacts(run, record)
    masks = {"a": artifacts.predictions.reader.mask("a"), "b": artifacts.truth.reader.mask("b")}
    record.tasks["ingest"].outputs["labels"] = labelled(run, "ingest/both", "truth", masks, "instances")
    notes = {NOTE_HAND_LABELLED: ["b"]}
    made = labelled(run, "em-0/cluster/learned", "pseudo", {"b": masks["b"]}, "foreground", notes=notes)
    record.tasks["em-0/cluster"].outputs["clusters"] = made
    assert RunArtifacts(run, record).learned() == {"b"}
    assert [gallery.key for gallery in galleries(run, record)] == ["a"]
    record.tasks["ingest"].outputs["labels"] = labelled(run, "ingest/one", "truth", {"b": masks["b"]}, "instances")
    shown = galleries(run, record)
    assert [gallery.key for gallery in shown] == ["b", "a"]
    assert ["labels learned from" in gallery.title for gallery in shown] == [True, False]


def test_stages_of_any_name_have_their_artifacts_shown(finished):
    run, record = finished
    other = RunRecord(pipeline="other")
    for i, (name, task) in enumerate(record.tasks.items()):
        other.tasks[f"task{i}" if "/" not in name else f"loop-{name[3]}/task{i % 5}"] = TaskRecord(
            stage="unheard_of", state="done", outputs=task.outputs
        )
    assert [gallery.key for gallery in galleries(run, other)] == ["b", "a"]
    assert len(galleries(run, other)[1].crops) == 3


def test_truth_of_another_size_is_not_drawn(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    record = finished[1].model_copy(deep=True)
    made = labelled(run, "ingest/small", "truth", {"b": np.ones((8, 8), np.uint8)}, "instances")
    record.tasks["ingest"].outputs["labels"] = made
    assert [caption.split(":")[0] for _, caption in galleries(run, record)[0].overview] == ["input", "prediction"]


def with_labels(record: RunRecord, run: Path, origin: str, write) -> RunRecord:
    """The record without label images, but with a LabelSet of `origin` that `write(writer)` fills."""
    made = RunRecord(pipeline="other", tasks={"ingest": record.tasks["ingest"].model_copy(deep=True)})
    for name in ("labels", "no_labels"):
        made.tasks["ingest"].outputs.pop(name)
    path = f"other-{origin}"
    with LabelWriter(run / path, origin) as writer:
        write(writer)
    output = OutputRecord(path=path, kind="LabelSet", digest=seal(run / path, LabelSet).digest)
    made.tasks["other"] = TaskRecord(stage="unheard_of", state="done", outputs={"found": output})
    return made


def test_boxes_are_drawn_where_there_are_no_label_images(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    box = Annotation("nucleus", (200.0, 200.0, 40.0, 30.0), 1200.0, score=0.9)
    record = with_labels(finished[1], run, "prediction", lambda writer: writer.annotate("a", (256, 256), [box]))
    (gallery,) = [one for one in galleries(run, record) if one.key == "a"]
    assert [caption for _, caption in gallery.overview] == ["input", "prediction: 1 boxes"]
    changed = (gallery.overview[0][0] != gallery.overview[1][0]).any(axis=2)
    assert changed[200, 200:240].all() and not changed[205:220, 210:230].any()
    assert RunArtifacts(run, record).predicted() == {"a"} and class_rows(run, record) == []
    drawn, caption = predictions_of(RunArtifacts(run, record), "a")
    assert caption == "1 boxes" and (drawn[201, 205:235] == PREDICTION_COLOUR).all()


def test_classified_images_stand_in_rows_of_their_outcome(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    sure = ImageClass("positive", 0.97, outcome="positive")
    unsure = ImageClass("positive", 0.61, outcome="abstain", reason="both classes are likely")
    record = with_labels(
        finished[1], run, "prediction", lambda writer: (writer.classify("a", unsure), writer.classify("b", sure))
    )
    assert galleries(run, record) == [], "nothing to outline"
    rows = class_rows(run, record)
    assert [title for title, _ in rows] == ["abstain: 1 images", "positive: 1 images"]
    captions = [caption for _, pictures in rows for _, caption in pictures]
    assert captions == ["positive 0.61, both classes are likely", "positive 0.97"]
    with LabelWriter(run / "true", "truth") as writer:
        writer.classify("b", "negative")
    output = OutputRecord(path="true", kind="LabelSet", digest=seal(run / "true", LabelSet).digest)
    record.tasks["ingest"].outputs["labels"] = output
    assert class_rows(run, record)[1][1][0][1] == "positive 0.97; truth: negative"


def test_the_masks_of_prediction_and_truth_are_coloured_by_where_they_are():
    rgb = np.zeros((1, 4, 3), np.uint8)
    drawn = compare_masks(rgb, np.array([[0, 1, 1, 0]]), np.array([[0, 1, 0, 1]])).astype(int)
    nothing, both, predicted, true = drawn[0]
    assert not nothing.any()
    assert both[1] == both.max()  # green
    assert predicted[0] > predicted[1] > predicted[2]  # orange
    assert true[0] > true[1] < true[2]  # magenta


def test_an_output_that_is_gone_is_left_out(finished, tmp_path):
    record = RunRecord(pipeline="x")
    gone = OutputRecord(path="nowhere", kind="ImageSet", digest="x")
    record.tasks["made"] = TaskRecord(state="done", outputs={"images": gone})
    assert RunArtifacts(tmp_path, record).images is None
