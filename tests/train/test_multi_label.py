"""Several labels per image: loss, metrics, training, evaluation, prediction, export and service."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_images, read_csv
from fastapi.testclient import TestClient
from torch.nn import functional

from ghostnets.artefacts import NONE_OF_THESE, Description, load_classifier, probabilities_of
from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.main import main
from ghostnets.data import DataSpec
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.export.deployed import DeployedModel
from ghostnets.measure import fit_temperature
from ghostnets.serve import ServiceSettings, create_app
from ghostnets.train import Recipe, RunFolder, train_model
from ghostnets.train.multi_label import count_exact, multi_label_losses, summarize_label_sets

PNG = {"content-type": "image/png"}
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 1.5, -0.2], [0.3, -0.4, -2.0], [1.0, 2.0, 3.0]])
LABELS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]])


def test_loss_is_the_negative_log_likelihood_of_all_labels():
    losses = multi_label_losses(LOGITS, LABELS)
    for row, (logits, labels) in enumerate(zip(LOGITS.tolist(), LABELS.tolist(), strict=True)):
        probabilities = [1 / (1 + math.exp(-x)) for x in logits]
        likelihood = math.prod(p if y else 1 - p for p, y in zip(probabilities, labels, strict=True))
        assert losses[row].item() == pytest.approx(-math.log(likelihood), rel=1e-5)
    smooth = functional.binary_cross_entropy_with_logits(LOGITS, LABELS * 0.8 + 0.1, reduction="none").sum(1)
    assert torch.allclose(multi_label_losses(LOGITS, LABELS, label_smoothing=0.2), smooth)
    assert count_exact(LOGITS, LABELS) == 2  # the second and the last


def test_metrics_equal_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(60, 5, generator=generator), torch.rand(60, 5, generator=generator) < 0.3
    labels[:, 4] = False  # a class without images has no average precision
    result = summarize_label_sets(labels.float(), logits, tuple("abcde"))
    known = labels[:, :4].numpy()
    assert result.mean_average_precision == pytest.approx(
        metrics.average_precision_score(known, logits[:, :4].numpy(), average="macro")
    )
    predicted = (logits > 0).numpy()
    for average, value in (("micro", result.micro_f1), ("macro", result.macro_f1)):
        assert value == pytest.approx(metrics.f1_score(labels.numpy(), predicted, average=average, zero_division=0))
    assert result.exact_match == pytest.approx(metrics.accuracy_score(labels.numpy(), predicted))
    assert result.loss == pytest.approx(
        5 * metrics.log_loss(labels.numpy().ravel(), logits.double().sigmoid().numpy().ravel())
    )


def test_temperature_has_the_lowest_binary_cross_entropy():
    temperature = fit_temperature(LOGITS.numpy(), (LOGITS < 0).float().numpy())
    fitted = fit_temperature(4 * LOGITS.numpy(), LABELS.numpy())
    assert temperature == pytest.approx(20, rel=1e-3)  # labels that the logits contradict

    def loss(t: float) -> float:
        return float(multi_label_losses(4 * LOGITS / t, LABELS).mean())

    assert loss(fitted) <= min(loss(fitted * 1.05), loss(fitted / 1.05))


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 16 pixels with a table of tags, one image without any."""
    folder = make_images(tmp_path_factory.mktemp("tags"), classes={"dark": 12, "light": 12})
    images = sorted(folder.rglob("*.png"))
    rows = [(image, [image.parent.name, *(["odd"] if i % 2 else [])]) for i, image in enumerate(images)]
    rows[0] = (rows[0][0], [])
    (folder / "labels.csv").write_text("path,tags\n" + "".join(f"{p},{'|'.join(t)}\n" for p, t in rows))
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def run(tags: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tags"
    train_model(tags, folder=folder, model="ghost_resnet20", epochs=2, batch_size=8, lr=0.01, mixup=0.2, progress=False)
    return folder


def test_run_records_and_selects_by_mean_average_precision(run: Path):
    rows = read_csv(RunFolder(run).metrics)
    assert {"val_map", "val_f1_micro", "val_f1_macro", "val_exact", "train_exact"} <= rows[0].keys()
    assert not {"val_top1", "train_top1"} & rows[0].keys()
    result = json.loads((run / "result.json").read_text())
    best = max(rows, key=lambda row: (float(row["val_map"]), -float(row["val_loss"])))
    assert result["best_epoch"] == int(best["epoch"])
    assert result["evaluation"]["mean_average_precision"] == pytest.approx(float(best["val_map"]))
    assert sum(result["data"]["images"].values()) == 24
    checkpoint = read_checkpoint(run / "best.safetensors")
    assert checkpoint.multi_label
    assert checkpoint.training["recipe"]["label_smoothing"] == 0
    assert [row.val_map for row in RunFolder(run).read_metrics()] == [float(row["val_map"]) for row in rows]


def test_report_has_labels_and_no_confusion_matrix(run: Path):
    text = (run / "report.html").read_text()
    assert "mean average precision" in text
    assert "Confusion matrix" not in text


def test_prediction_has_every_label_above_the_threshold(run: Path, tags: Path):
    images = [str(path) for path in sorted(tags.parent.rglob("*.png"))[:3]]
    classifier = load_classifier(run / "best.safetensors", threads=1, threshold=0.01)
    prediction = classifier(images[0], top=1)
    assert set(prediction.labels) == set(classifier.class_names)  # all of them, also beyond top
    assert prediction.answer == "; ".join(prediction.labels)
    assert len(prediction.classes) == 1
    pixels = np.stack([classifier.read(image) for image in images])
    logits = classifier.model.run(pixels).scores
    assert np.allclose(classifier.run(pixels).scores, 1 / (1 + np.exp(-logits)), atol=1e-6)
    nothing = load_classifier(run / "best.safetensors", threads=1, threshold=1.0)(images[0])
    assert (nothing.answer, nothing.labels) == (NONE_OF_THESE, ())
    assert load_classifier(run / "best.safetensors", threads=1).threshold == 0.5


def test_predict_eval_and_page(run: Path, tags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "p.csv"
    assert main(["predict", str(run), str(tags.parent), "--out", str(out)]) == 0
    assert "answer" in read_csv(out)[0]
    assert main(["predict", str(run), str(tags.parent), "--sort-into", str(tmp_path / "sorted")]) == 1
    assert "but --sort-into puts each image into one folder" in capsys.readouterr().err
    page, table = tmp_path / "losses.html", tmp_path / "images.csv"
    best = tmp_path / "best.safetensors"
    best.write_bytes((run / "best.safetensors").read_bytes())
    command = ["eval", str(best), str(tags), "--json", "--page", str(page), "--out", str(table)]
    assert main([*command, "--calibrate"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["temperature"] == read_checkpoint(best).temperature
    assert found["mean_average_precision"] == pytest.approx(
        json.loads((run / "result.json").read_text())["evaluation"]["mean_average_precision"]
    )
    assert found["picture"] is None
    assert "Highest losses of all" in page.read_text()
    assert {"truth", "prediction", "loss"} <= read_csv(table)[0].keys()
    assert main(["eval", str(best), str(tags), "--tta", "flip"]) == 0
    assert "mean average precision" in capsys.readouterr().out
    assert main(["eval", str(best), str(tags), "--figure", "x.png"]) == 1
    assert "no confusion matrix; omit --figure" in capsys.readouterr().err


def test_single_label_network_and_multi_label_data_do_not_mix(tiny_run: Path, tags: Path, capsys):
    assert main(["eval", str(tiny_run / "best.safetensors"), str(tags.parent / "labels.csv")]) == 1
    assert "classes that the checkpoint does not have" in capsys.readouterr().err


def test_exported_network_gives_sigmoids(run: Path):
    checkpoint = read_checkpoint(run / "best.safetensors")
    description = Description(
        *(checkpoint.architecture, checkpoint.arguments, checkpoint.class_names, checkpoint.preprocessing),
        output="probabilities",
        multi_label=True,
        temperature=2.0,
    )
    assert Description.from_json(description.to_json()) == description
    side = checkpoint.preprocessing.image_size
    pixels = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    network = checkpoint.build()
    with torch.inference_mode():
        logits = network(checkpoint.preprocessing.normalize(pixels.permute(0, 3, 1, 2)))
        (scores,) = DeployedModel(network, description)(pixels)
    assert torch.allclose(scores, (logits / 2).sigmoid(), atol=1e-4)
    expected = probabilities_of(logits.numpy(), multi_label=True, temperature=2.0)
    assert np.allclose(scores.numpy(), expected, atol=1e-4)


def test_service_gives_all_labels(run: Path, tags: Path):
    image = next(tags.parent.rglob("*.png"))
    with TestClient(create_app(run / "best.safetensors", ServiceSettings(threads=1))) as client:
        answer = client.post("/v1/predict?top=1", content=image.read_bytes(), headers=PNG).json()["images"][0]
    expected = load_classifier(run / "best.safetensors", threads=1)(image)
    assert answer["labels"] == list(expected.labels)
    assert answer["answer"] == expected.answer
    assert len(answer["answers"]) == 1


@pytest.mark.parametrize(
    "option", [{"class_balanced": True}, {"class_weights": "balanced"}, {"teacher": "ghostnet_100"}]
)
def test_single_label_options_are_rejected_for_multi_label_data(option: dict, tags: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="the images have several labels, and --"):
        train_model(tags, folder=tmp_path / "run", recipe=Recipe(model="ghost_resnet20", **option), progress=False)
    assert not (tmp_path / "run").exists()


def test_shards_reject_several_labels(tags: Path, tmp_path: Path):
    from ghostnets.data import write_shards

    with pytest.raises(DataError, match="which shards do not hold"):
        write_shards(DataSpec(tags).open(), tmp_path / "shards")
