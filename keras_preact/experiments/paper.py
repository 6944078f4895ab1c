"""The tables of the papers as data.

Sources: He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks" (2016), tables 1, 2, 3
and 5; "Deep Residual Learning for Image Recognition" (2015), section 4.2, for degradation.
"""

from keras_preact.experiments.table import Claim, Published, Row, Table

PAPER = "Identity Mappings in Deep Residual Networks (He et al. 2016)"
FIRST_PAPER = "Deep Residual Learning for Image Recognition (He et al. 2015)"
_UNITS = {
    "original": "original",
    "bn_after_addition": "BN after addition",
    "relu_before_addition": "ReLU before addition",
    "relu_only_preactivation": "ReLU-only pre-activation",
    "full_preactivation": "full pre-activation",
}
_CIFAR_SETTING = "test error (%), median of five runs, final weights"


def _shortcut_rows():
    """Table 1: (name, label, shortcut, its arguments, published error, number of the row)."""
    yield "identity", "identity", "identity", "", 6.61, 1
    scaling = "constant scaling, shortcut {}, F {}"
    for number, (shortcut, residual, error) in enumerate(
        ((0, 1, None), (0.5, 1, None), (0.5, 0.5, 12.35)), start=2
    ):
        yield (
            f"constant_scaling_{shortcut}_{residual}",
            scaling.format(shortcut, residual),
            "constant_scaling",
            f"shortcut_scale={shortcut},residual_scale={residual}",
            error,
            number,
        )
    for bias in range(0, -8, -1):
        error, number = {-6: (8.70, 6), -7: (9.81, 7)}.get(bias, (None, 5))
        yield _gate("exclusive", bias, error, number)
    yield _gate("shortcut_only", 0, 12.86, 8)
    yield _gate("shortcut_only", -6, 6.91, 9)
    yield "convolution", "1x1 convolution", "convolution", "", 12.22, 10
    yield "dropout", "dropout 0.5", "dropout", "rate=0.5", None, 11


def _gate(kind, bias, error, number):
    label = f"{kind.replace('_', '-')} gating, initial bias {bias}"
    name = f"{kind}_gating_{bias}"
    return name, label, f"{kind}_gating", f"initial_bias={bias}", error, number


def _table1():
    rows = tuple(
        Row(
            name,
            label,
            "CIFAR-10, ResNet-110",
            {
                "recipe": "cifar10_resnet110",
                "unit": "original",
                "shortcut": shortcut,
                **({"shortcut_arguments": arguments} if arguments else {}),
            },
            Published(error, f"Table 1, row {number}"),
        )
        for name, label, shortcut, arguments, error, number in _shortcut_rows()
    )
    return Table("table1", "Shortcuts", PAPER, rows, setting=_CIFAR_SETTING)


def _table2():
    published = {
        110: dict(zip(_UNITS, (6.61, 8.17, 7.84, 6.71, 6.37), strict=True)),
        164: dict(zip(_UNITS, (5.93, 6.50, 6.14, 5.91, 5.46), strict=True)),
    }
    rows = tuple(
        Row(
            f"resnet{depth}_{unit}",
            f"ResNet-{depth}, {label}",
            f"CIFAR-10, ResNet-{depth}",
            {"recipe": f"cifar10_resnet{depth}", "unit": unit},
            Published(published[depth][unit], f"Table 2, row {number}"),
        )
        for depth in published
        for number, (unit, label) in enumerate(_UNITS.items(), start=1)
    )
    return Table("table2", "Orders of BN and ReLU", PAPER, rows, setting=_CIFAR_SETTING)


# (name of the network, data set, flags, errors of original and pre-activation units, row)
_TABLE_3 = (
    ("resnet110_single", "CIFAR-10, ResNet-110 of one-layer units", "cifar10_resnet110",
     {"block": "single"}, (9.90, 8.91), 1),
    ("resnet110", "CIFAR-10, ResNet-110", "cifar10_resnet110", {}, (6.61, 6.37), 2),
    ("resnet164", "CIFAR-10, ResNet-164", "cifar10_resnet164", {}, (5.93, 5.46), 3),
    ("resnet1001", "CIFAR-10, ResNet-1001", "cifar10_resnet1001", {}, (7.61, 4.92), 4),
    ("cifar100_resnet164", "CIFAR-100, ResNet-164", "cifar100_resnet164", {}, (25.16, 24.33), 5),
    ("cifar100_resnet1001", "CIFAR-100, ResNet-1001", "cifar10_resnet1001",
     {"dataset": "cifar100"}, (27.82, 22.71), 6),
)  # fmt: skip


def _table3():
    units = ("original", "full_preactivation")
    rows = [
        Row(
            f"{name}_{unit}",
            f"{column.partition(', ')[2]} on {column.partition(', ')[0]}, {_UNITS[unit]}",
            column,
            {"recipe": recipe, "unit": unit, **flags},
            Published(error, f"Table 3, row {number}"),
        )
        for name, column, recipe, flags, errors, number in _TABLE_3
        for unit, error in zip(units, errors, strict=True)
    ]
    small_batch = Row(
        "resnet1001_full_preactivation_batch64",
        "ResNet-1001 on CIFAR-10, full pre-activation, mini-batch 64",
        "CIFAR-10, ResNet-1001",
        {"recipe": "cifar10_resnet1001", "global_batch_size": 64},
        Published(4.62, "Table 4, pre-activation ResNet-1001 with mini-batch 64"),
    )
    place = [row.name for row in rows].index("resnet1001_full_preactivation") + 1
    rows.insert(place, small_batch)
    deeper = "Table 3: pre-activation gains from depth"
    claims = (
        Claim("resnet164_full_preactivation", "resnet110_full_preactivation", deeper),
        Claim("resnet1001_full_preactivation", "resnet164_full_preactivation", deeper),
        Claim("resnet164_original", "resnet1001_original", "Table 3: original units lose by depth"),
        Claim("cifar100_resnet1001_full_preactivation", "cifar100_resnet164_full_preactivation",
              deeper),
        Claim("cifar100_resnet164_original", "cifar100_resnet1001_original",
              "Table 3: original units lose by depth"),
    )  # fmt: skip
    return Table(
        "table3",
        "Original against pre-activation units",
        PAPER,
        tuple(rows),
        claims,
        setting=_CIFAR_SETTING,
    )


def _table5():
    crop = "measured on one 320x320 crop; a run measures on one 224x224 centre crop"
    rows = []
    for depth, unit, errors, number, is_scaled_only in (
        (152, "original", (21.3, 5.5), 2, True),
        (152, "full_preactivation", (21.1, 5.5), 3, True),
        (200, "original", (21.8, 6.0), 4, True),
        (200, "full_preactivation", (20.7, 5.3), 5, True),
        (200, "full_preactivation", (20.1, 4.8), 6, False),
    ):
        suffix, augmented, flags = (
            ("", "scale", {"augmentation": "random_scale_crop"})
            if is_scaled_only
            else ("_scale_aspect", "scale and aspect ratio", {})
        )
        rows.append(
            Row(
                f"resnet{depth}_{unit}{suffix}",
                f"ResNet-{depth}, {_UNITS[unit]}, augmentation of {augmented}",
                f"ImageNet, ResNet-{depth}",
                {"recipe": f"imagenet_resnet{depth}", "unit": unit, **flags},
                Published(errors[0], f"Table 5, row {number}", errors[1], crop),
            )
        )
    return Table("table5", "ImageNet", PAPER, tuple(rows), setting="error (%), top-1 / top-5")


def _degradation():
    errors = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97}
    nets = (
        ("plain", "plain net", "PlainNet", {"shortcut": "none"}),
        ("residual", "residual net", "ResNet", {}),
    )
    rows = tuple(
        Row(
            f"{name}{depth}",
            f"{family}-{depth}",
            f"CIFAR-10, {label}s",
            # The first paper warms up the net of 110 layers alone.
            {"recipe": "cifar10_resnet20", "depth": depth, "unit": "original", "warmup_steps": 0,
             **flags},
            Published(errors[depth], "first paper, Table 6") if name == "residual" else None,
        )
        for name, label, family, flags in nets
        for depth in errors
    )  # fmt: skip
    where = "first paper, Figure 6"
    claims = (
        Claim("plain20", "plain32", where),
        Claim("plain32", "plain44", where),
        Claim("plain44", "plain56", where),
        *(Claim(f"residual{depth}", f"plain{depth}", where) for depth in errors),
    )
    return Table(
        "degradation",
        "Degradation: plain against residual nets",
        FIRST_PAPER,
        rows,
        claims,
        setting="test error (%), one run",
    )


TABLES = {
    table.name: table for table in (_table1(), _table2(), _table3(), _table5(), _degradation())
}
