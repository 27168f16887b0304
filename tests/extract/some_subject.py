"""A small model that looks at digits of 8 x 8 pixels as they are."""

from engine.some_digits import small_model

from vissl_lite.data.fast import FastViews
from vissl_lite.data.views import Views
from vissl_lite.extract.subject import Subject, digest


def some_subject():
    model = small_model().eval()
    transforms = [{"name": "resize", "short_side": 8}]
    views = FastViews(Views.build([{"size": 8, "transforms": transforms}]), on_device=False)
    description = {"weights": "none", "digest": digest(model), "size": 8, "transforms": transforms}
    return Subject(model, views, description, [])
