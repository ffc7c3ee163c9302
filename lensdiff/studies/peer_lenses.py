"""The light of a lens as lenstronomy computes it, one lens at a time: a check, and a comparison."""

from __future__ import annotations

import numpy as np

from ..lensing.population import einstein_radius_arcsec
from ..lensing.simulate import point_masses
from ..lensing.survey import Survey
from .peers import library


class Lenstronomy:
    """The noiseless image of one row of the truth, counts/s/pixel, as lenstronomy computes it.

    Raises ParameterError where lenstronomy is not installed.
    """

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        centre = {"center_ra": 0, "center_dec": 0}
        grid = library("lenstronomy.Util.util").make_grid_with_coordtransform(
            survey.pixels, survey.pixel_arcsec, subgrid_res=1, inverse=False, **centre
        )
        self.data = library("lenstronomy.Data.imaging_data").ImageData(
            np.zeros((survey.pixels, survey.pixels)),
            ra_at_xy_0=grid[2],
            dec_at_xy_0=grid[3],
            transform_pix2angle=grid[6],
        )
        self.psf = library("lenstronomy.Data.psf").PSF(
            "GAUSSIAN",
            fwhm=survey.psf_fwhm_arcsec,
            pixel_size=survey.pixel_arcsec,
            truncation=survey.psf_truncation_sigma,
        )
        rays = survey.supersampling
        self.numerics = {"supersampling_factor": rays, "supersampling_convolution": rays > 1}
        self.ellipticity = library("lenstronomy.Util.param_util").phi_q2_ellipticity
        self.image_model = library("lenstronomy.ImSim.image_model").ImageModel
        self.lens_model = library("lenstronomy.LensModel.lens_model").LensModel
        self.light_model = library("lenstronomy.LightModel.light_model").LightModel

    def lens(self, row: np.ndarray) -> tuple[list[str], list[dict]]:
        """Names and arguments of the lens models."""
        e1, e2 = self.ellipticity(row["lens_angle_rad"], row["lens_axis_ratio"])
        radius = row["einstein_radius_arcsec"]
        names = ["SIE", "SHEAR"]
        arguments = [
            {"theta_E": radius, "e1": e1, "e2": e2, "center_x": 0, "center_y": 0},
            {"gamma1": row["shear_1"], "gamma2": row["shear_2"]},
        ]
        for x, y, mass in np.stack([values[0] for values in point_masses(row[None])], axis=1):
            radius = float(einstein_radius_arcsec(mass, self.survey))
            names.append("POINT_MASS")
            arguments.append({"theta_E": radius, "center_x": x, "center_y": y})
        return names, arguments

    def __call__(self, row: np.ndarray) -> np.ndarray:
        e1, e2 = self.ellipticity(row["source_angle_rad"], row["source_axis_ratio"])
        source = {
            # lenstronomy's is per arcsec^2
            "amp": row["source_amplitude_cps"] / self.survey.pixel_arcsec**2,
            "R_sersic": row["source_radius_arcsec"],
            "n_sersic": row["source_sersic_index"],
            "e1": e1,
            "e2": e2,
            "center_x": row["source_x_arcsec"],
            "center_y": row["source_y_arcsec"],
        }
        names, lens = self.lens(row)
        model = self.image_model(
            self.data,
            self.psf,
            lens_model_class=self.lens_model(names),
            source_model_class=self.light_model(["SERSIC_ELLIPSE"]),
            kwargs_numerics=self.numerics,
        )
        return model.image(lens, [source])
