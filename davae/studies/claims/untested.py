"""Claims of the paper that no run here decides, and what would."""

from davae.studies.claims.result import UNTESTED, Result

_CLAIMS = (
    (
        "1 (1), 3.1, Eqs. 1 to 3",
        "the model cmSIMO-β VAE supports in theory that pose, shape and other factors separate",
        "a prediction of the derivation that a run could fail; it has none "
        "(that our loss is Eq. 3 as printed: tests/test_losses.py)",
    ),
    (
        "1 (2), 5",
        "three heads, supervision of each and a weighted KL together extract the pose",
        "`latent-report` of runs with and without division (`--set model.divided=false`), over 6 seeds; "
        "notebook 07 shows one pair",
    ),
    (
        "3.3",
        "selective kernels attend to what pose, shape or picture ask for",
        "the kernels' weights, over seeds, which the runs of record do not keep; notebook 04 draws them",
    ),
    (
        "4.1",
        "RHD: 41,258 training and 2,728 test images of 320 x 320 px, 20 subjects, 39 actions",
        "a copy of RHD; `check-data` counts and measures it",
    ),
    (
        "4.1",
        "STB: 18,000 stereo pairs of 640 x 480 px, 15,000 for training; one left hand, 6 backgrounds",
        "a copy of STB; `check-data` counts and measures it",
    ),
    (
        "4.4",
        "na-VAE and da-VAE have equally many parameters",
        "the authors' counts, which are not printed (ours differ by at most 3 %: `davae summary`)",
    ),
    ("4.4, Table 1", "na-VAE errs by 12.56 mm on RHD, AUC 0.951", "a copy of RHD, and 3 runs of full size"),
    (
        "4.4, Table 2",
        "ELBO and KL have the printed values",
        "the reductions behind them, which are not printed; the KLs fit means per dimension better than sums",
    ),
    (
        "4.4",
        "both models divide the code well, since their KLs are small",
        "a measure of division: a small KL can also mean an empty code (the row on KL above); notebook 07",
    ),
    (
        "4.4, 5",
        "attention divides the code better",
        "`latent-report` of da-VAE and na-VAE on the six pairs of seeds; notebook 07 shows how",
    ),
    (
        "4.5, 5",
        "the blocks correspond to pose, shape and colour",
        "`latent-report` of at least 3 seeds, beside an undivided code; notebook 07 shows one seed",
    ),
    (
        "4.5, Fig. 5",
        "along the pose block, the hand pose changes gradually",
        "a measure of \"gradually\"; the meshes shown are another network's (BiHand)",
    ),
    (
        "4.5, Fig. 5",
        "changing the pose block has no significant impact on the hand's shape",
        "a measure of flesh that does not depend on pose: the outline, which is measured above, does",
    ),
    (
        "4.5",
        "changing the shape block changes little to see, since the data have hands of few shapes",
        "a copy of RHD, and a set of hands of many shapes beside it (`render --flesh wide` makes one)",
    ),
    (
        "abstract, 4.6, 5",
        "da-VAE is competitive with, or superior to, the other methods on RHD and STB",
        "the other methods evaluated under one protocol, on copies of both sets",
    ),
    (
        "4.6",
        "below 20 mm, the AUC on STB drops considerably",
        "a copy of STB, and a number for \"considerably\"",
    ),
    (
        "4.6, Fig. 7",
        "da-VAE's PCK is the highest on RHD at every threshold; on STB, below Ge et al. under 35 mm",
        "the curves as numbers, which are not printed, or the other methods' predictions",
    ),
    (
        "4.6, Fig. 8",
        "da-VAE handles challenging poses and orientations reliably",
        "a copy of RHD and a criterion; the examples were selected. Notebook 06 selects by a rule",
    ),
)  # fmt: skip


def list_untested() -> list[Result]:
    """Return these claims, in the paper's order."""
    return [Result(place, claim, UNTESTED, note=needed) for place, claim, needed in _CLAIMS]
