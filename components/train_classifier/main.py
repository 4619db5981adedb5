"""Train a classifier on labelled images."""

import cv2
import torch

from components.train_classifier.calibration import fit_probabilities, prior_correction, with_scores
from components.train_classifier.card import model_card
from components.train_classifier.component import TrainClassifier
from components.train_classifier.labelled_images import LabelledImages
from components.train_classifier.loop import embeddings_and_features, predict_parts, train
from components.train_classifier.model_input import choose_input
from components.train_classifier.page import TrainedClassifier, make_page
from components.train_classifier.splits import LabelledKeys, choose_images, nothing_to_learn
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.metrics.classes import class_metrics, confusion_matrix, roc_curve
from shared.metrics.classification import Classification
from shared.models.backbones.vit import Encoder
from shared.models.class_predictor import BATCH_SIZE, ClassPrediction, ClassPredictor
from shared.models.classifier import REFERENCES, Classifier
from shared.models.config import ClassifierArchitecture, ClassifierConfig, ClassifierPostProcessing
from shared.models.files import save_absent, save_model
from shared.models.load import load_model
from shared.stage.declaration import Result
from shared.system.devices import device, threads
from shared.system.errors import UserError
from shared.system.log import log
from shared.training.history import first_and_last_loss
from shared.training.seeds import seed_everything

MAX_ROC_POINTS = 200
"""Points of the ROC curve in the output `classification`."""


def run(stage: TrainClassifier) -> Result:
    """Train, calibrate, score the splits, and write the classifier."""
    cv2.setNumThreads(threads())
    reader, classes = ImageReader(stage.images), LabelReader(stage.truth).classes()
    if reason := nothing_to_learn(reader, classes):
        if stage.without_labels == "fail":
            raise UserError(f"--truth: {reason}; give a LabelSet with classes of images")
        save_absent(stage.classifier, reason)
        return Result(skipped=reason)
    keys = choose_images(stage, reader, classes)
    seed_everything(stage.seed)
    where = device()
    classifier = new_classifier(stage, load_model(stage.encoder, Encoder), reader, keys)
    images = LabelledImages(reader, classifier.config.input)
    fit_standardisation(classifier, images, keys.train, where)
    trained, history, scores = train(stage, classifier, images, keys, where)
    calibrate(stage, trained, images, keys, where)
    predictor = ClassPredictor.of(trained, where)
    predictions = {split: predict(predictor, images, members) for split, members in keys.scored().items()}
    found = metrics(keys, predictions)
    save_model(stage.classifier, trained.state_dict(), trained.config, model_card(stage, trained.config, keys, found))
    done = TrainedClassifier(trained, images, keys, predictions, history, scores)
    return Result(
        metrics=first_and_last_loss(history) | {"steps": float(len(history))} | found,
        classification=classification(keys, predictions),
        page=make_page(stage, done, where),
        remark=remark(keys),
    )


def new_classifier(stage: TrainClassifier, encoder: Encoder, reader: ImageReader, keys: LabelledKeys) -> Classifier:
    """Build a classifier on an encoder. Raises UserError where the encoder does not fit the images."""
    given, vit = encoder.config.input, encoder.config.architecture
    channels = max(reader.entries[key].channels for key in keys.index)
    if channels > given.channels:
        raise UserError(
            f"--encoder: {stage.encoder}: made for {given.channels} channels, the images have up to {channels}; give "
            "an encoder that was pretrained on such images"
        )
    model_input = choose_input(stage, reader, keys.train, given, vit.patch)
    architecture = ClassifierArchitecture(
        encoder=vit, classes=keys.classes, pooling=stage.pooling, stem=stage.stem and stage.tune == "all"
    )
    classifier = Classifier(ClassifierConfig(architecture=architecture, input=model_input))
    classifier.encoder.load_state_dict(encoder.state_dict())
    return classifier


def fit_standardisation(classifier: Classifier, images: LabelledImages, keys: list[str], where: str) -> None:
    """Fit the contrast of the input and the standardisation of the embedding to the training images."""
    classifier.to(where)
    some = evenly_spaced(keys, REFERENCES)
    classifier.fit_contrast(torch.cat([torch.from_numpy(batch) for batch in images.batches(some, BATCH_SIZE)]))
    classifier.fit_standardisation(embeddings_and_features(classifier, images, some, where)[0])


@torch.no_grad()
def calibrate(
    stage: TrainClassifier, trained: Classifier, images: LabelledImages, keys: LabelledKeys, where: str
) -> None:
    """Set the reference of distances, prior correction and temperature, and the calibration images' scores.

    Without images to choose by, nothing is corrected: the probabilities are those for classes of equal frequency.
    """
    trained.fit_reference(embeddings_and_features(trained, images, evenly_spaced(keys.train, REFERENCES), where)[1])
    temperature = 1.0
    if keys.can_select:
        parts, labels = predict_parts(trained, images, keys.selection, where), keys.labels(keys.selection)
        correction = prior_correction(stage, keys.counts(keys.train))
        fitted = fit_probabilities(*parts, labels, correction, trained.stem is not None)
        trained.head.bias.add_(torch.from_numpy(fitted.added).to(where))
        trained.weigh_tokens(fitted.token_weight)
        temperature = fitted.temperature
        log.info("weight of the tokens: %g, of 1; temperature %.3g", fitted.token_weight, temperature)
    settings = ClassifierPostProcessing(temperature=round(temperature, 4))
    trained.config = trained.config.model_copy(update={"postprocessing": settings})
    found = predict(ClassPredictor.of(trained, where), images, keys.calibration)
    settings = with_scores(settings, found.probability, found.distance, keys.labels(keys.calibration))
    trained.config = trained.config.model_copy(update={"postprocessing": settings})


def predict(predictor: ClassPredictor, images: LabelledImages, keys: list[str]) -> ClassPrediction:
    """Predict images by their keys, as later stages do."""
    return predictor.predict_inputs(images.batches(keys, predictor.batch_size))


def metrics(keys: LabelledKeys, predictions: dict[str, ClassPrediction]) -> dict[str, float]:
    """`SPLIT_METRIC` -> number."""
    return {
        f"{split}_{name}": value
        for split, found in predictions.items()
        for name, value in class_metrics(found.probability, keys.labels(getattr(keys, split)))
    }


def classification(keys: LabelledKeys, predictions: dict[str, ClassPrediction]) -> Classification:
    """Confusion matrix, and of two classes the ROC curve, of the split that is shown."""
    split = keys.shown
    probability, labels = predictions[split].probability, keys.labels(getattr(keys, split))
    roc = roc_curve(probability[:, 1], labels == 1) if len(keys.classes) == 2 else []
    matrix = confusion_matrix(probability, labels).astype(float).tolist()
    return Classification(labels=list(keys.classes), confusion=matrix, roc=evenly_spaced(roc, MAX_ROC_POINTS))


def remark(keys: LabelledKeys) -> str:
    """What a user should know: classes that a split lacks, and the smallest target error of abstention."""
    absent = {
        split: [name for name, count in zip(keys.classes, keys.counts(members), strict=True) if not count]
        for split, members in keys.scored().items()
    }
    told = [f"{split} has no image of {', '.join(names)}." for split, names in absent.items() if names]
    counts = keys.counts(keys.calibration)
    if not keys.calibration:
        return " ".join([*told, "There is no calibration image, without which infer needs target_error=none."])
    rarest, smallest = keys.classes[int(counts.argmin())], int(counts.min())
    images = "1 calibration image" if smallest == 1 else f"{smallest} calibration images"
    return " ".join([*told, f"With {images} of {rarest}, infer keeps target errors from {1 / (smallest + 1):.2g} on."])
