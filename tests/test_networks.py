"""Networks: published parameter counts, gradients, selective kernels by hand, loading of weights."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from davae.config import BLOCKS, PRESETS, LossConfig, preset
from davae.data.augment import Batch
from davae.evaluation.summary import summarise
from davae.losses import objective
from davae.networks import DaVAE
from davae.networks.blocks import BasicBlock, SelectiveKernel, SqueezeExcitation, SqueezeExcitationBlock
from davae.networks.decoders import CloudDecoder, ImageDecoder
from davae.training.device import NARROW, NarrowProjection, move_to
from davae.training.pretrained import load_resnet34

PAPER = preset("paper").model


def variants(name):
    """da-VAE, na-VAE, and the third with squeeze-excitation."""
    config = preset(name).model
    return tuple(dataclasses.replace(config, attention=attention) for attention in ("sk", "none", "se"))


def meta(config):
    with torch.device("meta"):
        return DaVAE(config)


def count(module):
    return sum(p.numel() for p in module.parameters())


def resnet34_state():
    """A state dict with torchvision's resnet34 names and shapes, random values."""
    state, channels = {"conv1.weight": torch.randn(64, 3, 7, 7)}, 64

    def batch_norm(name, c):
        for field in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{field}"] = torch.rand(c)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    batch_norm("bn1", 64)
    for layer, (wide, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            state[f"{name}.conv1.weight"] = torch.randn(wide, channels, 3, 3)
            state[f"{name}.conv2.weight"] = torch.randn(wide, wide, 3, 3)
            batch_norm(f"{name}.bn1", wide)
            batch_norm(f"{name}.bn2", wide)
            if channels != wide:
                state[f"{name}.downsample.0.weight"] = torch.randn(wide, channels, 1, 1)
                batch_norm(f"{name}.downsample.1", wide)
            channels = wide
    state |= {"fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}
    return state


def batch_for(config, b=2):
    px = config.image_px
    return Batch(
        image=torch.rand(b, 3, px, px), target=torch.rand(b, 3, px, px), mask=torch.ones(b, 1, px, px),
        joints=torch.randn(b, 21, 3), cloud=torch.randn(b, 50, 3), has_cloud=torch.ones(b, dtype=torch.bool),
        has_mask=torch.ones(b, dtype=torch.bool), scale_mm=torch.full((b,), 30.0),
    )  # fmt: skip


def test_trunk_and_plain_head_make_a_resnet34():
    model = meta(variants("paper")[1])
    head = model.encoder.heads["pose"]
    assert (
        count(model.encoder.trunk) + count(head) - count(head.fc) == 21_284_672
    )  # torchvision's, without fc


def test_fold_decoder_has_the_published_number_of_weights():
    assert count(CloudDecoder(PAPER)) == 564_742


def test_a_denser_sheet_has_the_points_of_training_and_others_between_them():
    config = preset("smoke").model
    model, side = DaVAE(config).eval(), config.fold_grid
    z = {block: torch.randn(3, size) for block, size in config.latent_sizes.items()}
    joints = torch.zeros(3, 21, 3)  # which this decoder does not read
    trained = model.decode(z).cloud.unflatten(1, (side, side))
    denser = model.decode_cloud(z, joints, (2 * side - 1) ** 2).unflatten(1, (2 * side - 1, 2 * side - 1))
    assert_close(denser[:, ::2, ::2], trained)
    steps = torch.linalg.vector_norm(trained.diff(dim=2), dim=3)
    halves = torch.linalg.vector_norm(denser[:, ::2].diff(dim=2), dim=3).unflatten(2, (-1, 2)).amax(3)
    assert (halves > 0).all() and halves.max() < steps.max()
    assert model.decode_cloud(z, joints, 2000).shape == (3, 45**2, 3)  # the next square


@pytest.mark.parametrize("name", PRESETS)
def test_variants_have_equivalent_parameters(name):
    selective, plain, squeezed = (count(meta(config)) for config in variants(name))
    assert plain <= selective <= 1.03 * plain
    assert plain < squeezed <= 1.03 * plain


def test_summary_adds_up_and_counts_what_is_there():
    config = preset("smoke").model
    *parts, total = summarise(config)
    assert total.parameters == count(DaVAE(config)) == sum(p.parameters for p in parts)
    assert total.flops == sum(p.flops for p in parts)
    stem = 2 * 3 * 49 * config.width * (config.image_px // 2) ** 2
    assert parts[0].flops > stem
    pose = next(p for p in parts if p.name == "pose decoder")
    assert pose.flops == 2 * (24 * config.pose_hidden + config.pose_hidden**2 + config.pose_hidden * 63)


def test_flops_of_the_variants_lie_within_three_percent():
    da, na, se = (summarise(config)[-1].flops for config in variants("laptop"))
    assert abs(da / na - 1) < 0.03 and abs(se / na - 1) < 0.03


def test_squeeze_excitation_by_hand():
    unit = SqueezeExcitation(6, 2)
    x = torch.randn(3, 6, 4, 5)
    hidden = torch.relu(x.mean((2, 3)) @ unit.squeeze.weight.T + unit.squeeze.bias)
    weights = 1 / (1 + torch.exp(-(hidden @ unit.excite.weight.T + unit.excite.bias)))
    assert_close(unit(x), x * weights.reshape(3, 6, 1, 1))
    assert ((weights > 0) & (weights < 1)).all()


def test_a_block_whose_weights_are_one_is_a_plain_block():
    torch.manual_seed(1)
    block, plain = SqueezeExcitationBlock(4, 8, stride=2, reduced=2), BasicBlock(4, 8, stride=2)
    plain.load_state_dict({n: v for n, v in block.state_dict().items() if not n.startswith("weigh.")})
    nn.init.constant_(block.weigh.excite.bias, 50.0)  # its sigmoid is 1
    x = torch.randn(2, 4, 6, 6)
    assert_close(block.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("name", ["smoke", "laptop", "sweep"])
@pytest.mark.parametrize("variant", [0, 1, 2])
def test_shapes_and_every_parameter_gets_a_gradient(name, variant):
    config = variants(name)[variant]
    model, batch = DaVAE(config).train(), batch_for(config, b=3)
    output = model(batch.image)
    assert output.pose.shape == (3, 21, 3)
    assert output.cloud.shape == (3, config.fold_grid**2, 3)
    # The limb decoder paints half of a batch in training.
    painted = 2 if config.image_decoder == "limbs" else 3
    assert output.image.shape == (painted, *batch.image.shape[1:])
    assert {k: v.shape[1] for k, v in output.z.items()} == {"pose": 24, "appearance": 16, "shape": 8}
    objective(output, batch, LossConfig()).total.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without


def test_every_decoder_of_an_undivided_code_reads_the_whole_code():
    smoke = dataclasses.replace(preset("smoke").model, image_decoder="paper")
    config = dataclasses.replace(smoke, divided=False)
    model, divided = DaVAE(config).eval(), DaVAE(smoke)
    assert config.title == "da-VAE, undivided"
    assert count(model.encoder) == count(divided.encoder)
    assert count(model.image_decoder) == count(divided.image_decoder)
    code = {block: torch.randn(2, size, requires_grad=True) for block, size in config.latent_sizes.items()}
    whole = torch.cat(list(code.values()), dim=1)
    decoded = model.decode(code)
    assert_close(decoded.pose, model.pose_decoder(whole))
    for term in (decoded.pose, decoded.cloud, decoded.image):
        gradients = torch.autograd.grad(term.square().sum(), list(code.values()), retain_graph=True)
        assert all(gradient.any() for gradient in gradients)
    state = divided.state_dict()
    with pytest.raises(RuntimeError, match="pose_decoder"):
        model.load_state_dict(state)


@pytest.mark.parametrize("name", PRESETS)
def test_layer4_keeps_at_least_four_by_four(name):
    config = preset(name).model
    with torch.device("meta"):
        model = DaVAE(config).eval()
        features = model.encoder.trunk(torch.empty(1, 3, config.image_px, config.image_px))
        head = model.encoder.heads["pose"]
        height, width = head.layer4(head.layer3(features)).shape[2:]
        assert height == width == config.last_px >= 4


@pytest.mark.parametrize("strides", [(2, True, 2), (4, False, 1), (3, True, 2)])
def test_last_px_is_the_side_of_layer4s_map_for_any_size(strides):
    stem, pool, last = strides
    config = dataclasses.replace(
        preset("smoke").model, image_px=112, stem_stride=stem, stem_pool=pool, last_stride=last
    )
    with torch.device("meta"):
        model = DaVAE(config).eval()
        head = model.encoder.heads["pose"]
        maps = head.layer4(head.layer3(model.encoder.trunk(torch.empty(1, 3, 112, 112))))
    assert maps.shape[2:] == (config.last_px, config.last_px)


def test_an_unpooled_head_is_a_pooled_one_where_all_places_have_the_same_weights():
    pooled = dataclasses.replace(preset("smoke").model, head_pool="mean")
    unpooled = dataclasses.replace(pooled, head_pool="none")
    model, other = DaVAE(pooled).eval(), DaVAE(unpooled).eval()
    state = model.state_dict()
    for name, weight in state.items():
        if name.endswith("fc.weight"):
            state[name] = weight.repeat_interleave(pooled.last_px**2, dim=1)
    other.load_state_dict(state)
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert_close(other.encode(image).means, model.encode(image).means)


def test_the_image_decoders_sub_pixel_layer_is_a_transposed_convolution_of_stride_four():
    config = dataclasses.replace(preset("smoke").model, image_last_stride=4)
    decoder = ImageDecoder(config).eval()
    convolution = decoder.out[0]
    wide = convolution.in_channels
    plain = nn.ConvTranspose2d(wide, 3, 12, stride=4, padding=4)
    # Output pixel 4 i + p takes input i + d through kernel element p + 4 - 4 d of the transposed one.
    weight = convolution.weight.detach().view(3, 4, 4, wide, 3, 3)  # colour, p, q, channel, d + 1, e + 1
    kernel = weight.flip(4, 5).permute(3, 0, 4, 1, 5, 2).reshape(wide, 3, 12, 12)
    plain.weight = nn.Parameter(kernel)
    convolution.bias.data = torch.tensor([0.1, -0.2, 0.3]).repeat_interleave(16)
    plain.bias = nn.Parameter(torch.tensor([0.1, -0.2, 0.3]))
    maps = torch.randn(2, wide, 16, 16)
    assert_close(decoder.out(maps), plain(maps))


def test_image_decoder_refuses_other_last_strides():
    config = dataclasses.replace(preset("smoke").model, image_last_stride=3)
    with pytest.raises(ValueError, match="image_last_stride is 3; expected 2 or 4"):
        ImageDecoder(config)


def test_paper_size_takes_one_training_step_at_256_px():
    torch.manual_seed(0)
    model, batch = DaVAE(PAPER).train(), batch_for(PAPER, b=2)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = model.pose_decoder[0].weight.clone()
    objective(model(batch.image), batch, LossConfig()).total.backward()
    optimiser.step()
    assert not torch.equal(before, model.pose_decoder[0].weight)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_pose_reads_only_z_pose_and_cloud_not_appearance():
    model = DaVAE(preset("smoke").model).eval()
    z = {block: torch.randn(2, n) for block, n in model.config.latent_sizes.items()}
    base = model.decode(z)
    for block in BLOCKS:
        changed = model.decode(z | {block: torch.randn_like(z[block])})
        assert torch.equal(changed.pose, base.pose) == (block != "pose")
        assert torch.equal(changed.cloud, base.cloud) == (block == "appearance")
        assert not torch.equal(changed.image, base.image)


def test_evaluation_takes_the_mean_and_training_samples():
    model = DaVAE(preset("smoke").model)
    image = torch.rand(4, 3, 64, 64)
    output = model.eval()(image)
    assert all(torch.equal(output.z[b], output.means[b]) for b in BLOCKS)
    output = model.train()(image)
    assert not any(torch.equal(output.z[b], output.means[b]) for b in BLOCKS)
    noise = torch.randn(4, model.latents)
    output = model(image, noise)
    rebuilt = torch.cat(
        [
            output.means[b] + torch.exp(output.logvars[b] / 2) * n
            for b, n in zip(BLOCKS, noise.split([24, 16, 8], 1), strict=True)
        ],
        1,
    )
    assert_close(torch.cat([output.z[b] for b in BLOCKS], 1), rebuilt)


def test_selective_kernel_by_hand():
    torch.manual_seed(1)
    unit = SelectiveKernel(4, 6, stride=1, reduced=3).eval()
    for branch in unit.branches:
        branch[1].running_mean.normal_()
        branch[1].running_var.uniform_(0.5, 2)
    x = torch.randn(2, 4, 5, 5)
    maps = []
    for half, branch, dilation in ((x[:, :2], unit.branches[0], 1), (x[:, 2:], unit.branches[1], 2)):
        y = nn.functional.conv2d(half, branch[0].weight, padding=dilation, dilation=dilation)
        norm = branch[1]
        y = (y - norm.running_mean[:, None, None]) / torch.sqrt(norm.running_var[:, None, None] + norm.eps)
        maps.append(torch.relu(y * norm.weight[:, None, None] + norm.bias[:, None, None]))
    pooled = (maps[0] + maps[1]).mean((2, 3))
    logits = unit.select(torch.relu(unit.fuse[1](pooled @ unit.fuse[0].weight.T))).view(2, 2, 6)
    weights = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    assert_close(unit(x), maps[0] * weights[:, 0, :, None, None] + maps[1] * weights[:, 1, :, None, None])
    assert_close(unit.attention(pooled).sum(1), torch.ones(2, 6))
    last = x.contiguous(memory_format=torch.channels_last)
    assert_close(unit(last), unit(x))
    assert unit(last).is_contiguous(memory_format=torch.channels_last)


def test_resnet34_weights_load_into_the_trunk_and_into_plain_heads():
    state = resnet34_state()
    config = dataclasses.replace(PAPER, attention="none")
    model = DaVAE(config)
    names = load_resnet34(model.encoder, state)
    assert "layer4.2.bn2.running_var" in names and "layer2.3.conv2.weight" in names
    assert_close(model.encoder.trunk.layer2[3].conv2.weight.data, state["layer2.3.conv2.weight"])
    for head in model.encoder.heads.values():
        assert_close(head.layer3[5].bn1.running_mean, state["layer3.5.bn1.running_mean"])
    for attention in ("sk", "se"):  # whose blocks have further weights
        encoder = DaVAE(dataclasses.replace(PAPER, attention=attention)).encoder
        assert not any(name.startswith(("layer3", "layer4")) for name in load_resnet34(encoder, state))


def test_resnet34_weights_of_another_shape_are_refused_whole():
    model = DaVAE(preset("smoke").model)
    before = model.encoder.trunk.conv1.weight.clone()
    with pytest.raises(ValueError, match=r"conv1.weight is \(64, 3, 7, 7\)"):
        load_resnet34(model.encoder, resnet34_state())
    state = resnet34_state()
    del state["layer2.0.bn1.bias"]
    with pytest.raises(ValueError, match=r"layer2\.0\.bn1\.bias is missing"):
        load_resnet34(meta(PAPER).encoder, state)
    assert torch.equal(before, model.encoder.trunk.conv1.weight)


def test_wrong_image_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(b, 3, 64, 64\), found \(1, 3, 32, 32\)"):
        DaVAE(preset("smoke").model)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="image_px is 100"):
        ImageDecoder(dataclasses.replace(PAPER, image_px=100))


@pytest.mark.parametrize("stride", [2, (3, 2)])
def test_a_narrow_projection_computes_what_a_strided_convolution_does(stride):
    """In double precision, where the convolution that it stands for is not oneDNN's."""
    plain = nn.Conv2d(5, 6, 1, stride=stride, dtype=torch.float64)
    narrow = nn.Conv2d(5, 6, 1, stride=stride, dtype=torch.float64)
    narrow.load_state_dict(plain.state_dict())
    narrow = move_to(narrow, torch.device("cpu"))
    assert type(narrow) is NarrowProjection
    x = torch.randn(2, 5, 9, 12, dtype=torch.float64)
    values = []
    for layer in (plain, narrow):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        y.square().sum().backward()
        values.append((y, leaf.grad, layer.weight.grad, layer.bias.grad))
    for expected, found in zip(*values, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("width", [8, 16])
def test_strided_projections_of_few_channels_are_avoided_in_training(width):
    """On some processors PyTorch's own are unsafe."""
    network = move_to(DaVAE(dataclasses.replace(preset("smoke").model, width=width)), torch.device("cpu"))
    strided = [
        m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) != m.stride
    ]
    assert strided
    for layer in strided:
        assert isinstance(layer, NarrowProjection) == (layer.in_channels < NARROW)
    assert any(isinstance(layer, NarrowProjection) for layer in strided) == (width < NARROW)
