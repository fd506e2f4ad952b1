"""Figures from toy hands: they are complete, keep their style, and show the given numbers."""

import importlib.util

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import synthetic
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from mpl_toolkits.mplot3d import proj3d
from test_repository import DEPRECATED, ORDER

from davae import figures, metrics
from davae.config import preset
from davae.evaluation.summary import summarise
from davae.figures import curves
from davae.figures.diagram import FROM_NETWORK, PHOTO_PATH, ROOMS, TO_NETWORK
from davae.figures.disentanglement import BELONGS
from davae.figures.style import ESTIMATE, TRUTH
from synthhand.skeleton import BONES, JOINT_COLOURS

RNG = np.random.default_rng(0)
HANDS = np.stack([synthetic.hand(seed) for seed in range(9)])
GUESSES = HANDS + RNG.normal(scale=0.1, size=HANDS.shape) * np.linspace(0.5, 2, 9)[:, None, None]
PICTURES = [synthetic.picture(joints, seed) for seed, joints in enumerate(HANDS)]
UV, UV_GUESSES = synthetic.project(HANDS), synthetic.project(GUESSES)
CLOUDS = [synthetic.cloud(joints, 200) for joints in HANDS]
ERRORS_MM = np.linalg.norm(HANDS - GUESSES, axis=-1) * 30
VISIBLE = RNG.random((9, 21)) < 0.8
KL = {
    "pose": RNG.exponential(2, 24),
    "appearance": RNG.exponential(1, 16),
    "shape": np.r_[RNG.exponential(2, 7), 0.01],
}
LOG = synthetic.training_log()
SWEPT = np.array([0.003, 0.3, 3.0, 30.0, 3000.0])
SWEPT_ERRORS = np.array([20, 18, 17, 19, 30]) + RNG.normal(size=(3, 5))
PAIRS = {"da-VAE": np.array([17.0, 18.0, 17.4]), "na-VAE": np.array([17.5, 18.1, 18.0])}
PER_JOINT_MM = np.linspace(5, 25, 21)


def one_hand(projection: str | None = None) -> Figure:
    figure, axes = figures.new_axes(3.2, subplot_kw={"projection": projection})
    if projection:
        figures.draw_hand_3d(axes[0, 0], HANDS[0] * 30, unit="mm")
    else:
        figures.draw_hand(axes[0, 0], UV[0], PICTURES[0], visible=VISIBLE[0])
    return figure


LEAKS = {
    "appearance moves the outline, over what pose does": [0.6, 0.4, 1.2, 0.2, np.nan],
    "pose changes the colour, over what appearance does": [3.5, 0.4, 0.1, 0.3, 1234.0],
}
LEAK_OPTIONS = {"bound": 0.2, "variable": "r", "claim": (3, 30), "claimed": "the paper's best r, by error"}

BLOCK_FACTS = {block: {"dimensions": len(kl), "active_units": 5, "kl": kl.sum()} for block, kl in KL.items()}
KNOWN = {
    block: {group: 0.9 if group in own else -0.01 for groups in BELONGS.values() for group in groups}
    for block, own in BELONGS.items()
    if block
}
SWAPPED = [
    {kind: dict(zip(("start", *KL, "end"), PICTURES[:5], strict=True)) for kind in ("truth", "decoded")}
] * 2

MAKERS = {
    "draw_hand": one_hand,
    "draw_hand_3d": lambda: one_hand("3d"),
    "hands_grid": lambda: figures.hands_grid(
        PICTURES, UV, titles=[f"id {i}" for i in range(9)], visible=VISIBLE
    ),
    "hands_grid, several lines": lambda: figures.hands_grid(
        PICTURES[:5], titles=["pose 1, +2 sd\njoints 3 mm\ncloud 4 mm\ncolour 5/255"] * 5, columns=5
    ),
    "hands_grid, compared": lambda: figures.hands_grid(PICTURES, UV, UV_GUESSES, columns=5),
    "best_median_worst": lambda: figures.best_median_worst(
        PICTURES, UV, UV_GUESSES, HANDS, GUESSES, ERRORS_MM.mean(axis=1), each=2
    ),
    "cloud_figure": lambda: figures.cloud_figure(CLOUDS[0], HANDS[0]),
    "block_map": lambda: figures.block_map(KNOWN, KNOWN, BLOCK_FACTS, SWAPPED, title="what blocks know"),
    "block_map, without factors": lambda: figures.block_map(
        {block: {"joints": 0.5, "mask area": None} for block in KL}, KNOWN, BLOCK_FACTS
    ),
    "block_maps": lambda: figures.block_maps(
        {"divided": {"means": KNOWN, "samples": KNOWN}, "undivided": {"means": KNOWN, "samples": KNOWN}}
    ),
    "latent_strip": lambda: figures.latent_strip(
        {"image": PICTURES[:3], "mesh": PICTURES[3:6]},
        ["0", "0.5", "1"],
        ["a\nb"] * 3,
        PICTURES[0],
        PICTURES[2],
        title="z of pose from start to end",
    ),
    "cloud_figure, mm": lambda: figures.cloud_figure(CLOUDS[0] * 30, unit="mm"),
    "sweep_curve": lambda: figures.sweep_curve(SWEPT, SWEPT_ERRORS, variable="r", claim=(3, 30), guess=57.0),
    "rate_distortion": lambda: figures.rate_distortion(
        {block: np.linspace(80, 1, 5) for block in KL},
        {block: np.geomspace(17, 57, 5) for block in KL},
        SWEPT,
        measures=dict.fromkeys(KL, "error (mm)"),
        variable="r",
    ),
    "kl_profiles": lambda: figures.kl_profiles({"r = 3": KL, "r = 3000": KL}),
    "leak_curves": lambda: figures.leak_curves(SWEPT, LEAKS, **LEAK_OPTIONS),
    "paired_seeds": lambda: figures.paired_seeds(PAIRS),
    "trend": lambda: figures.trend(
        np.linspace(20, 40, 90), {block: RNG.random(90) for block in KL}, xlabel="bone (mm)", ylabel="share"
    ),
    "reconstructions": lambda: figures.reconstructions(
        PICTURES[:2], PICTURES[1:3], PICTURES[2:4], CLOUDS[:2], CLOUDS[1:3]
    ),
    "reconstructions, images alone": lambda: figures.reconstructions(
        PICTURES[:1], PICTURES[1:2], PICTURES[2:3]
    ),
    "loss_curves": lambda: figures.loss_curves(LOG),
    "term_bars": lambda: figures.term_bars(LOG),
    "kl_bars": lambda: figures.kl_bars(KL),
    "pck_curves": lambda: figures.pck_curves({"da-VAE": ERRORS_MM, "mean pose": ERRORS_MM * 5}),
    "pck_beside_reported": lambda: figures.pck_beside_reported(
        {"da-VAE": ERRORS_MM},
        {f"Someone et al. [{n}]": 0.9 + n / 200 for n in range(15)},
        on="a",
        reported_on="b",
    ),
    "error_by_joint": lambda: figures.error_by_joint({"da-VAE": PER_JOINT_MM, "na-VAE": PER_JOINT_MM + 1}),
    "bone_length_histogram": lambda: figures.bone_length_histogram(
        {"train": RNG.normal(29, 2, 500), "val": RNG.normal(29, 2, 50), "test": RNG.normal(29, 2, 80)}
    ),
    "skin_tone_histogram": lambda: figures.skin_tone_histogram(RNG.random((200, 3))),
    "factor_histograms": lambda: figures.factor_histograms(
        {f"factor {i} (px)": RNG.random(90) for i in range(6)}
    ),
    "viewpoint_scatter": lambda: figures.viewpoint_scatter(figures.palm_normal(HANDS)),
    "rooms_diagram": figures.rooms_diagram,
    "model_diagram": lambda: figures.model_diagram(preset("smoke").model),
}


@pytest.fixture(scope="module")
def drawn():
    """Every figure, made once and rendered; with what making them left behind in matplotlib."""
    before = dict(matplotlib.rcParams)
    made = {name: make() for name, make in MAKERS.items()}
    left = {key for key, value in matplotlib.rcParams.items() if before[key] != value}
    assert not left and not plt.get_fignums()
    for figure in made.values():
        figure.canvas.draw()
    return made


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip()]


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_cut_off(drawn, name):
    figure = drawn[name]
    assert isinstance(figure, Figure)
    assert figure.get_figwidth() == pytest.approx(6.5)
    ink = figure.get_tightbbox(figure.canvas.get_renderer())  # inches
    width, height = figure.get_size_inches()
    assert min(ink.x0, ink.y0) > -0.02 and ink.x1 < width + 0.02 and ink.y1 < height + 0.02


@pytest.mark.parametrize("name", ["loss_curves", "term_bars", "kl_bars", "pck_curves", "error_by_joint",
                                  "bone_length_histogram", "cloud_figure, mm", "draw_hand_3d"])  # fmt: skip
def test_axes_say_their_units(drawn, name):
    assert any("(mm" in text or "(nats" in text or "(1/mm" in text for text in texts(drawn[name]))


def test_a_skeleton_lies_on_its_pixels():
    figure, axes = figures.new_axes(3)
    ax = axes[0, 0]
    figures.draw_hand(ax, UV[0], PICTURES[0], halo=False)
    np.testing.assert_allclose(ax.collections[1].get_offsets(), UV[0])
    np.testing.assert_allclose(ax.collections[0].get_segments(), UV[0][BONES])
    drawn_colours = [matplotlib.colors.to_hex(c) for c in ax.collections[0].get_colors()]
    assert drawn_colours == [JOINT_COLOURS[child] for _, child in BONES]
    assert ax.get_xlim() == (-0.5, synthetic.PX - 0.5) and ax.get_ylim() == (synthetic.PX - 0.5, -0.5)
    assert len(figure.axes) == 1


def test_hidden_joints_are_hollow():
    _, axes = figures.new_axes(3)
    figures.draw_hand(axes[0, 0], UV[0], visible=np.arange(21) != 8)
    faces = axes[0, 0].collections[-1].get_facecolors()
    assert [index for index in range(21) if np.allclose(faces[index], 1)] == [8]
    assert axes[0, 0].yaxis_inverted()


def test_space_is_seen_as_the_camera_sees_it():
    figure, axes = figures.new_axes(3, subplot_kw={"projection": "3d"})
    ax = axes[0, 0]
    figures.draw_hand_3d(ax, HANDS[0])
    figure.canvas.draw()

    def on_screen(x, y, z):
        u, v, _ = proj3d.proj_transform(x, z, y, ax.get_proj())
        return u, v  # right, up

    origin = on_screen(0, 0, 0)
    assert on_screen(1, 0, 0)[0] > origin[0] + abs(on_screen(1, 0, 0)[1] - origin[1])
    assert on_screen(0, 1, 0)[1] < origin[1]  # y points down
    # What is nearer looks larger.
    near, far = (on_screen(1, 0, z)[0] - on_screen(-1, 0, z)[0] for z in (-1, 1))
    assert near > far


def test_comparison_draws_truth_in_blue_and_estimate_in_red(drawn):
    ax = drawn["hands_grid, compared"].axes[0]
    colours = {
        matplotlib.colors.to_hex(c.get_colors()[0]) for c in ax.collections if hasattr(c, "get_segments")
    }
    assert {TRUTH, ESTIMATE} <= colours
    assert {"truth", "estimate"} <= set(texts(drawn["hands_grid, compared"]))


def test_truth_and_estimate_differ_without_colour(drawn):
    """For readers who see no red, above all on skin: a light and a dark edge; in space, dashes."""
    for name in ("hands_grid, compared", "best_median_worst"):
        flat = drawn[name].axes[0]
        bones = [c for c in flat.collections if hasattr(c, "get_segments")]
        edges = {
            matplotlib.colors.to_hex(bones[i + 1].get_color()[0]): bones[i].get_color()[0] for i in (0, 2)
        }
        assert min(edges[TRUTH][:3]) > 0.9 and max(edges[ESTIMATE][:3]) < 0.2
    space = next(ax for ax in drawn["best_median_worst"].axes if hasattr(ax, "get_zlim"))
    dashes = {line.get_color(): line.get_linestyle() for line in space.lines}
    assert dashes == {TRUTH: "-", ESTIMATE: "--"}


@pytest.mark.parametrize("name", ["pck_curves", "leak_curves", "kl_profiles", "trend", "loss_curves"])
def test_curves_differ_without_colour(name):
    makers = MAKERS | {  # as many curves as there are protocols
        "pck_curves": lambda: figures.pck_curves({f"P{n}": ERRORS_MM * n for n in range(1, 6)}),
    }
    figure = makers[name]()
    labelled = next(ax for ax in figure.axes if ax.get_legend())  # of kl_profiles, the last
    handles = [h[0] if isinstance(h, tuple) else h for h in labelled.get_legend_handles_labels()[0]]
    lines = [handle for handle in handles if isinstance(handle, matplotlib.lines.Line2D)]
    looks = [(str(line._dash_pattern), line.get_marker()) for line in lines]
    if name == "loss_curves":  # a hue for each block: errors are solid, KL dashed, the sum is wide
        looks = [(*look, line.get_linewidth()) for look, line in zip(looks, lines, strict=True)]
        assert len(set(looks)) == 3
    else:
        assert len(looks) > 1 and len(set(looks)) == len(looks)


def test_a_legend_shows_which_bars_are_whose(drawn):
    legend = drawn["error_by_joint"].axes[0].get_legend()
    hatches = [patch.get_hatch() for patch in legend.findobj(matplotlib.patches.Rectangle)[:2]]
    bars = [container[0].get_hatch() for container in drawn["error_by_joint"].axes[0].containers]
    assert hatches == bars and len(set(bars)) == 2


def test_a_legend_of_a_sweep_lies_on_nothing(drawn):
    (ax,) = drawn["sweep_curve"].axes
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1 - 1


def test_names_of_factors_do_not_lie_on_each_other(drawn):
    for ax in drawn["block_maps"].axes:
        boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_numbers_above_bars_are_short():
    assert [curves._shorten(v) for v in (0.1234, 56.789, 999.6, 460123.0, 1234567.0)] == [
        *("0.123", "56.8", "1k", "460k", "1.23M")
    ]


def test_best_median_worst_in_order(drawn):
    titles = [text for text in texts(drawn["best_median_worst"]) if text.endswith(" mm")]
    means = np.sort(ERRORS_MM.mean(axis=1))
    chosen = [("best", 0), ("best", 1), ("median", 3), ("median", 4), ("worst", 7), ("worst", 8)]
    assert titles == [f"{name}, {means[index]:.1f} mm" for name, index in chosen]


def test_a_curve_of_shares_is_that_of_its_errors():
    """From thresholds of half a millimetre, as the record keeps them; less than the window is refused."""
    thresholds_mm = np.linspace(0, 50, 101)
    _, axes = figures.new_axes(3.0)
    shares = {"model": metrics.pck(ERRORS_MM, thresholds_mm)}
    figures.draw_shares(axes[0, 0], shares, thresholds_mm)
    known = figures.pck_curves({"model": ERRORS_MM}).axes[0]
    assert axes[0, 0].get_legend().texts[0].get_text() == known.get_legend().texts[0].get_text()
    x, y = axes[0, 0].lines[0].get_data()
    np.testing.assert_array_equal(y, np.interp(x, *known.lines[0].get_data()))
    with pytest.raises(ValueError, match=r"thresholds from 0 to 40 mm: expected .* 20 to 50 mm"):
        figures.draw_shares(axes[0, 0], {"model": shares["model"][:81]}, thresholds_mm[:81])


def test_pck_legend_holds_the_auc():
    figure = figures.pck_curves({"model": np.append(ERRORS_MM * 4, np.nan)})
    area = metrics.auc(metrics.AUC_THRESHOLDS_MM, metrics.pck(ERRORS_MM * 4, metrics.AUC_THRESHOLDS_MM))
    assert f"model ({area:.3f})" in texts(figure)
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), metrics.pck(ERRORS_MM * 4, line.get_xdata()))


def test_bars_are_as_high_as_their_values(drawn):
    heights = [patch.get_height() for patch in drawn["kl_bars"].axes[0].patches]
    np.testing.assert_allclose(heights, np.sort(KL["pose"])[::-1])
    assert f"shape: {KL['shape'].sum():.1f} nats,\n7 of 8 above 0.05" in texts(drawn["kl_bars"])
    terms = [patch.get_height() for patch in drawn["term_bars"].axes[0].patches]
    assert terms[0] == LOG["alpha_pose"][0] and terms[6] == LOG["alpha_pose"][-1] and len(terms) == 12
    joints = [patch.get_height() for patch in drawn["error_by_joint"].axes[0].patches]
    np.testing.assert_allclose(joints[:21], PER_JOINT_MM)


def test_what_leaks_beyond_the_axis_is_marked_with_its_value(drawn):
    ax = drawn["leak_curves"].axes[0]
    marked = [(x, y) for line in ax.lines if line.get_marker() == "^" for x, y in line.get_xydata().tolist()]
    assert marked == [(np.log10(SWEPT[0]), 1.2), (np.log10(SWEPT[-1]), 1.2)]
    assert {"3.5", "1,230"} <= set(texts(drawn["leak_curves"]))
    assert ax.get_ylim() == (0, 1.2)


def test_curves_of_a_constant_are_flat():
    log = {name: np.full(50, 3.0) for name in LOG} | {
        "step": np.arange(50.0),
        "val_epe_mm": np.full(50, np.nan),
    }
    figure = figures.loss_curves(log)
    assert len(figure.axes) == 1  # no validation, no empty panel
    for line in figure.axes[0].lines:
        np.testing.assert_allclose(line.get_ydata(), 3.0)


def test_skin_tones_are_counted_by_lightness():
    grey = 0.4663  # whose L* is 50
    figure = figures.skin_tone_histogram([[0, 0, 0], [1, 1, 1], [1, 1, 1], [grey + 0.01] * 3], bins=4)
    assert [(bar.get_x(), bar.get_height()) for bar in figure.axes[0].patches] == [(0, 1), (50, 1), (75, 2)]


def test_a_palm_turned_to_the_camera_is_in_the_middle_of_the_map():
    # A right hand with its fingers up (-y) and its thumb on the right (+x) shows its palm.
    joints = np.zeros((1, 21, 3))
    joints[0, 5], joints[0, 17] = [0.5, -2, 0], [-0.8, -1.8, 0]
    normal = figures.palm_normal(joints)
    np.testing.assert_allclose(normal, [[0, 0, -1]], atol=1e-12)
    offsets = figures.viewpoint_scatter(normal).axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(offsets, [[0, 0]], atol=1e-12)
    up = figures.viewpoint_scatter([[0, -1, 0]]).axes[0].collections[0].get_offsets()
    assert up[0, 1] == pytest.approx(np.pi / 2)


@pytest.mark.parametrize(
    ("name", "count"), [("model_diagram", 1 + 1 + 3 + 3 + 3), ("rooms_diagram", 7 + 13 + 21)]
)
def test_diagram_boxes_hold_their_text_and_do_not_touch(drawn, name, count):
    figure = drawn[name]
    ax, renderer = figure.axes[0], figure.canvas.get_renderer()
    boxes = [p.get_window_extent(renderer) for p in ax.patches if isinstance(p, FancyBboxPatch)]
    assert len(boxes) == count
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
    for text in ax.texts:
        extent = text.get_window_extent(renderer)
        inside = [box for box in boxes if box.x0 < extent.x0 and extent.x1 < box.x1 and box.overlaps(extent)]
        assert inside or not any(box.overlaps(extent) for box in boxes), text.get_text()


def test_diagram_shows_the_rooms_and_modules_that_there_are(drawn):
    for package, rooms in ROOMS.items():
        assert list(rooms) == [n for n in ORDER[package] if n not in {"__init__", "__main__", *DEPRECATED}]
    steps = [name for path in (TO_NETWORK[1:], FROM_NETWORK, PHOTO_PATH[1:]) for _, name, *_ in path]
    for name in steps:
        module = name if name.startswith("synthhand") else f"davae.{name}"
        assert name in texts(drawn["rooms_diagram"]) and importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("attention", ["sk", "none", "se"])
def test_diagram_states_the_counts_of_the_network(attention):
    config = preset("smoke").model
    config = type(config)(**{**vars(config), "attention": attention})
    total = {part.name: part.parameters for part in summarise(config)}["total"]
    words = texts(figures.model_diagram(config))
    assert f"{config.title}: {total / 1e3:.0f} k parameters" in words
    assert f"{config.fold_grid**2}×3 points" in " ".join(words)


def test_plotly_hand_holds_what_it_is_given():
    figure = figures.plotly_hand(CLOUDS[0], HANDS[0], unit="mm")
    cloud, joints = figure.data[0], figure.data[-1]
    np.testing.assert_allclose(np.stack([cloud.x, cloud.y, cloud.z], axis=1), CLOUDS[0])
    np.testing.assert_allclose(np.stack([joints.x, joints.y, joints.z], axis=1), HANDS[0])
    assert len(figure.data) == 1 + len(BONES) + 1
    assert figure.layout.scene.camera.up.y == -1
    with pytest.raises(ValueError, match="a cloud, joints or both"):
        figures.plotly_hand()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: figures.hands_grid(PICTURES, UV[:3]), "images 9, uv_px_true 3"),
        (lambda: figures.hands_grid([]), "equal, positive lengths"),
        (lambda: figures.hands_grid([np.zeros((4, 4))]), r"an image must be \(h, w, 3\)"),
        (lambda: figures.cloud_figure(np.zeros((0, 3))), r"cloud must be \(points, 3\)"),
        (lambda: figures.draw_hand_3d(None, np.zeros((20, 3))), r"joints must be \(21, 3\), found \(20, 3\)"),
        (lambda: figures.skin_tone_histogram(np.full((3, 3), 200)), r"on \[0, 1\]"),
        (lambda: figures.factor_histograms({}), "factors is empty"),
        (lambda: figures.factor_histograms({"pose": np.zeros((5, 2))}), "factor 'pose' must be"),
        (lambda: figures.viewpoint_scatter(np.zeros((0, 3))), "normals must be"),
    ],
)
def test_wrong_arrays_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
    assert not plt.get_fignums()


def test_use_style_gives_a_session_this_look():
    with matplotlib.rc_context():
        figures.use_style()
        assert matplotlib.rcParams["axes.spines.top"] is False


def test_a_band_says_how_many_seeds_it_is_drawn_from():
    values, whole = np.array([1.0, 10.0, 100.0]), np.arange(9.0).reshape(3, 3)
    holes = np.where(np.arange(3) == 1, whole, np.where(np.arange(3)[:, None] == 0, whole, np.nan))
    for errors, said in ((whole, "range over 3 seeds"), (holes, "range over 1 to 3 seeds")):
        (axes,) = figures.sweep_curve(values, errors, variable="r").axes
        assert said in [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_seed_that_a_model_lacks_is_not_counted():
    errors = {"da-VAE": np.array([20.0, 22.0]), "se-VAE": np.array([np.nan, 30.0])}
    (axes,) = figures.paired_seeds(errors).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["da-VAE\n2 seeds", "se-VAE\n1 seed"]
    assert [text.get_text() for text in axes.texts] == ["21.00", "30.00"]
