"""Published figures on TACoS, as the paper tabulates them."""

NS = (10, 5, 1)
IOUS = (0.1, 0.2, 0.3, 0.4, 0.5)
_DATA = "TACoS test, C3D features"
_THEIRS = f"{_DATA}, NMS at m - 0.05"
_FIRST = f"{_DATA}, first result, which no suppression changes"
NOTE = (
    "Figures of other data, splits, features or protocols do not compare "
    "with these."
)
# Of the paper's two, the last columns are displaced in its text: read by eye.
PUBLISHED = {
    f"Table 1, ACRN as the paper ran it ({_THEIRS})": {
        10: (0.712, 0.618, 0.533, 0.489, 0.328),
        5: (0.588, 0.504, 0.435, 0.340, 0.274),
        1: (0.211, 0.182, 0.146, 0.109, 0.077),
    },
    f"Table 2, ACNN ({_THEIRS})": {
        10: (0.719, 0.606, 0.519, 0.445, 0.347),
        5: (0.588, 0.504, 0.426, 0.373, 0.271),
        1: (0.287, 0.266, 0.202, 0.165, 0.131),
    },
    f"CTRL, Gao et al. 2017 ({_FIRST})": {
        1: (0.243, None, 0.183, None, 0.133),
    },
    f"ACRN, Liu et al. 2018 ({_FIRST})": {
        1: (0.242, None, 0.195, None, 0.146),
    },
    f"2D-TAN, Zhang et al. 2020 ({_FIRST})": {
        1: (0.476, None, 0.373, None, 0.253),
    },
}
