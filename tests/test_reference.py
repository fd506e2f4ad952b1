"""The reference of the benchmarks computes the same as davae: outputs, loss, gradients, augmentation."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rhd_fixture import write_dataset

from davae.config import BLOCKS
from davae.data import augment
from davae.data.prepared import PreparedSplit
from davae.data.sample import row_layout
from davae.losses import cloud_loss, objective
from davae.networks import DaVAE

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import reference

# Networks of other presets differ in these.
VARIANTS = {
    "smoke": {},
    "other ends": {"image_last_stride": 4, "head_pool": "none"},
    "na": {"attention": "none"},
}


@pytest.fixture(scope="session")
def paper_config(tiny_config):
    """The experiment with the paper's image decoder, which the reference has."""
    data = dataclasses.replace(tiny_config.data, canvas=False)
    model = dataclasses.replace(tiny_config.model, image_decoder="paper")
    return dataclasses.replace(tiny_config, data=data, model=model)


@pytest.fixture(params=VARIANTS)
def twins(request, paper_config, prepared):
    """davae's model and loss on a batch, the reference's on the same, and the gradients of both, by name."""
    torch.manual_seed(3)
    config = dataclasses.replace(paper_config.model, **VARIANTS[request.param])
    model, plain = DaVAE(config).train(), reference.Reference(config).train()
    plain.load_state_dict(reference.rename_weights(model.state_dict()))
    raw = augment.load_batch(PreparedSplit.open(prepared, "train"), np.arange(6))
    raw = raw._replace(has_cloud=torch.tensor([True] * 5 + [False]))
    batch = augment.augment(raw, paper_config.data, torch.Generator().manual_seed(1))
    noise = torch.randn(6, model.latents)
    return model, plain, batch, noise, paper_config.loss


def close(found, expected):
    """Equal to 1e-5 of the largest value of a tensor."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(1.0, expected.abs().max().item()))


@pytest.mark.parametrize("chamfer", [reference.plain_cloud_loss, cloud_loss])
def test_outputs_loss_and_gradients_are_those_of_davae(twins, chamfer):
    model, plain, batch, noise, weights = twins
    expected, found = model(batch.image, noise), plain(batch.image, noise)
    for name in ("pose", "cloud", "image"):
        close(getattr(found, name), getattr(expected, name))
    for block in BLOCKS:
        for name in ("means", "logvars", "z"):
            close(getattr(found, name)[block], getattr(expected, name)[block])
    loss = reference.plain_loss(found, batch, weights, chamfer)
    total = objective(expected, batch, weights).total
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=0)
    loss.backward()
    total.backward()
    gradients = reference.rename_weights({name: p.grad for name, p in model.named_parameters()})
    assert gradients.keys() == dict(plain.named_parameters()).keys()
    for name, parameter in plain.named_parameters():
        scale = gradients[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("mask", ["none", "truth"])
@pytest.mark.parametrize("has_mask", [True, False])
def test_a_sample_is_turned_and_zoomed_as_a_batch_is(paper_config, prepared, mask, has_mask):
    config = dataclasses.replace(paper_config.data, mask=mask)
    split = PreparedSplit.open(prepared, "train")
    raw = augment.load_batch(split, np.arange(4))
    raw = raw._replace(has_mask=torch.full((4,), has_mask))
    angle, scale = torch.tensor([0.0, 0.4, -2.0, 3.0]), torch.tensor([1.0, 0.8, 0.93, 0.85])
    expected = augment.turn_and_zoom(raw, config, angle, scale)
    for index in range(4):
        row = {name: np.asarray(getattr(split, name)[index]) for name in row_layout(config)}
        row["has_mask"] = np.asarray(has_mask)
        found = reference.turn_and_zoom(row, config, angle[index].item(), scale[index].item())
        for name, value in found._asdict().items():
            levels = (
                2.01 / 255 if name in ("image", "target", "mask") else 1e-5
            )  # Pillow rounds to whole levels
            of_batch = getattr(expected, name)[index]
            torch.testing.assert_close(value, of_batch, rtol=0, atol=levels, msg=f"{name} {index}")


def test_an_epoch_reads_files_and_trains(paper_config, tmp_path):
    root = write_dataset(tmp_path / "rendered", train=3, val=1, test=1)
    samples = reference.RenderedSamples(root, "train", paper_config.data)
    first, again = samples[0], samples[0]
    assert len(samples) == 3 and not torch.equal(first.image, again.image)  # turned anew each time
    bones = [torch.linalg.vector_norm(s.joints[10] - s.joints[9]).item() for s in (first, again)]
    assert bones == pytest.approx([1, 1], abs=1e-4)
    training = reference.ReferenceTraining(paper_config)
    before = [p.detach().clone() for p in training.model.parameters()]
    training.epoch(samples, steps=2, workers=0)
    assert all(torch.isfinite(p).all() for p in training.model.parameters())
    moved = [not torch.equal(p, old) for p, old in zip(training.model.parameters(), before, strict=True)]
    assert np.mean(moved) > 0.9
