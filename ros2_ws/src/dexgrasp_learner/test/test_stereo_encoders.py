"""Encoders of stereo colour images: what attends to what, where weights come from, export."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.encoders import build_encoder
from dexgrasp_learner.networks.resnet import FixedNorm, ResNet18
from dexgrasp_learner.networks.stereo import StereoAttention, StereoSmallEncoder
from dexgrasp_learner.run.assembly import fresh_actor
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.specs import TensorSpec
from test_support.bundles import write

torch.set_num_threads(1)

CELLS, WIDTH = 6, 128


def images(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (count, 2, 3, height, width), generator=generator)
    return values.to(torch.uint8)


def encoder(name, height, width, **settings):
    spec = TensorSpec("stereo_rgb", (2, 3, height, width), "uint8")
    torch.manual_seed(0)
    return build_encoder(spec, NetworkConfig(encoder=name, **settings), None).eval()


def test_a_cell_reads_itself_and_the_other_image_only():
    """One block, of which the outputs of all tokens are looked at."""
    torch.manual_seed(0)
    attention = StereoAttention(CELLS, dropout=0.0).eval()
    tokens = torch.randn(1, 1 + 2 * CELLS, WIDTH)
    block = attention.blocks[0]
    before = block(tokens, attention.mask)
    for changed in range(1 + 2 * CELLS):
        other = tokens.clone()
        other[0, changed] += torch.randn(WIDTH)
        reads = (block(other, attention.mask) - before).abs().amax(-1)[0] > 1e-6  # [tokens]
        view = torch.tensor([0] + [1] * CELLS + [2] * CELLS)
        expected = (view != view[changed]) & (view[changed] > 0) & (view > 0)
        expected[changed] = True
        expected[0] = True
        assert torch.equal(reads, expected), changed


def test_dropout_is_off_at_evaluation_and_on_in_training():
    net = encoder("stereo_resnet", 64, 64, attention_dropout=0.5)
    batch = images(2, 64, 64)
    with torch.no_grad():
        assert torch.equal(net(batch), net(batch))
        net.train()
        assert not torch.equal(net(batch), net(batch))


def test_an_actor_acts_without_dropout():
    network = {"actor_groups": ("stereo_rgb",), "encoder": "stereo_resnet"}
    config = RunConfig(network=NetworkConfig(**network))
    camera = replace(config.task.camera, width=64, height=64)
    actor = fresh_actor(replace(config, task=replace(config.task, camera=camera)))
    assert not actor.training
    batch = {"stereo_rgb": images(3, 64, 64)[None]}
    arguments = (batch, torch.zeros(1, 3, dtype=torch.bool), actor.initial_memory(3))
    with torch.no_grad():
        assert torch.equal(actor(*arguments).mean, actor(*arguments).mean)


def test_fixed_norm_is_batch_normalisation_at_evaluation():
    oracle, own = nn.BatchNorm2d(5).eval(), FixedNorm(5)
    torch.manual_seed(0)
    for tensor in (oracle.weight.data, oracle.bias.data, oracle.running_mean, oracle.running_var):
        tensor.copy_(torch.rand(5) + 0.1)
    state = oracle.state_dict()
    state.pop("num_batches_tracked")
    own.load_state_dict(state)
    values = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(own(values), oracle(values))


def torchvision_weights():
    """Random weights under the names and in the shapes of torchvision's file."""
    torch.manual_seed(5)
    weights = {name: torch.rand_like(t) for name, t in ResNet18().state_dict().items()}
    extra = {"fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)}
    return {**weights, "bn1.num_batches_tracked": torch.tensor(7), **extra}


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18.safetensors"])
def test_weights_come_from_the_users_file(tmp_path, name):
    weights, path = torchvision_weights(), tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(weights, path)
    net = ResNet18()
    net.load(path)
    assert all(torch.equal(net.state_dict()[key], weights[key]) for key in net.state_dict())
    assert len(net.state_dict()) == len(weights) - 3


def test_names_of_the_weights_are_torchvisions():
    """The count and a few of the names of its published file, which has 11,176,512 of them."""
    net = ResNet18()
    names = net.state_dict()
    assert {"conv1.weight", "layer2.0.downsample.1.running_var", "layer4.1.bn2.bias"} <= {*names}
    assert names["layer4.0.downsample.0.weight"].shape == (512, 256, 1, 1)
    assert sum(weight.numel() for weight in net.parameters()) == 11_176_512


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_unusable_weights_are_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "weights.pth"
    if damage != "missing":
        torch.save({"conv1.weight": torch.zeros(2)}, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"network\.resnet_weights .*resnet18") as caught:
        ResNet18().load(path)
    assert "\n" not in str(caught.value)


def test_the_path_of_the_weights_counts_from_the_config(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("network: {encoder: stereo_resnet, resnet_weights: w.pth}\n")
    assert load_run_config(file).network.resnet_weights == str(tmp_path / "w.pth")


def test_a_keypoint_is_where_its_feature_is():
    """One bright patch of 4x4 pixels; the first key likes bright ones."""
    net = encoder("stereo_small", 24, 32, rgb_gain=1.0)
    assert isinstance(net, StereoSmallEncoder)
    batch = torch.zeros(1, 2, 3, 24, 32, dtype=torch.uint8)
    batch[0, 0, :, 8:12, 20:24] = 255  # row 2 of 6, column 5 of 8 in the left image
    batch[0, 1, :, 8:12, 16:20] = 255  # one column to the left in the right one
    with torch.no_grad():
        for layer in (net.patch, net.keys):
            layer.weight.zero_()
            layer.bias.zero_()
        net.patch.weight[0] = 1.0
        net.keys.weight[0, 0] = 10.0
        places = net(batch)[0, : net.features].reshape(-1)[: 2 * 24 * 2].reshape(2, 24, 2)
    left = torch.tensor([2 * 5 / 7 - 1, 2 * 2 / 5 - 1])
    torch.testing.assert_close(places[0, 0], left, atol=1e-4, rtol=0)
    torch.testing.assert_close(places[1, 0], left - torch.tensor([2 / 7, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(places[0, 1], torch.zeros(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [("stereo_small", 24, 30), ("stereo_small", 480, 640), ("stereo_resnet", 48, 64)],
)
def test_an_image_that_does_not_suit_is_refused(name, height, width):
    with pytest.raises(ConfigError, match=f"height {height} and width {width} does not suit"):
        encoder(name, height, width)


@pytest.mark.parametrize("name", ["stereo_small", "stereo_resnet"])
def test_depth_is_not_stereo(name):
    spec = TensorSpec("depth", (64, 64), "int16")
    with pytest.raises(ConfigError, match="takes stereo colour images only, 'depth' is int16"):
        build_encoder(spec, NetworkConfig(encoder=name), RunConfig().table_view)


@pytest.mark.parametrize("name", ["stereo_small", "stereo_resnet"])
def test_images_of_a_batch_do_not_mix(name):
    net = encoder(name, 64, 64)
    batch = images(3, 64, 64)
    with torch.no_grad():
        whole = net(batch)
        assert torch.equal(net(net.lay_out(batch)), whole)
        for row in range(3):
            torch.testing.assert_close(net(batch[row : row + 1])[0], whole[row])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stereo_small", "stereo_resnet"])
def test_a_bundle_acts_as_the_policy(tmp_path, name):
    """`write_bundle` compares the exported graph with the policy on all test steps."""
    network = NetworkConfig(actor_groups=("proprio", "stereo_rgb"), encoder=name)
    write(tmp_path / "bundle", network, camera={"width": 64, "height": 64})
    image = read_manifest(tmp_path / "bundle").image
    assert image is not None and image.shape == (2, 3, 64, 64)
