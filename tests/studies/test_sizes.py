"""The stored curves of distance and KID against the number of images."""

import json

import numpy as np

from lensdiff.model import load
from lensdiff.scores.extrapolation import against_size, kid_against_size
from lensdiff.storage import shipped, studies_folder
from lensdiff.studies import sizes


def cloud(n, seed, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (n, 6)).astype(np.float32)


def test_the_distance_is_biased_and_kid_is_not():
    real = cloud(1_600, 0)
    other = cloud(1_600, 1)
    numbers = [40, 80, 400, 1_600]
    distance, _ = against_size(other, real, numbers)
    kid, covariance = kid_against_size(other, real, numbers)
    assert (np.diff(distance) < 0).all() and distance[0] > 10 * distance[-1]
    errors = np.sqrt(np.diag(covariance))
    assert (np.abs(kid) < 4 * errors).all() and errors[0] > errors[-1]


def test_the_stored_curves_are_of_the_shipped_weights_and_agree_with_the_card():
    table = json.loads((studies_folder() / sizes.FILE).read_text())
    card = json.loads((shipped("lens150") / "card.json").read_text())
    rows = {row["name"]: row for row in table["rows"]}
    mine = rows["lens150"]
    assert mine["model_sha256"] == load(shipped("lens150")).spec["sha256"]
    assert table["extractor_sha256"] == card["extractor_sha256"]
    assert table["sizes"][-1] == card["n_generated"]
    assert np.isclose(mine["frechet"]["values"][-1], card["distance"], rtol=1e-3)
    assert np.isclose(rows[sizes.FLOOR]["frechet"]["values"][-1], card["floor"], rtol=1e-3)
    for row in rows.values():
        assert (np.diff(row["frechet"]["values"]) < 0).all()
        errors = np.sqrt(np.diag(row["kid"]["covariance"]))
        assert np.ptp(row["kid"]["values"]) < 2 * errors.max()
