"""The tables of the papers, against figures and counts written down independently."""

import pytest
from variants import ORDERS

from keras_preact.experiments.paper import TABLES
from keras_preact.models import describe

# Table 1 of "Identity Mappings in Deep Residual Networks"; None is "fail".
TABLE_1 = {
    **{"identity": 6.61, "constant_scaling_0_1": None, "constant_scaling_0.5_1": None},
    **{"constant_scaling_0.5_0.5": 12.35, "exclusive_gating_-6": 8.70, "exclusive_gating_-7": 9.81},
    **{f"exclusive_gating_{bias}": None for bias in (0, -1, -2, -3, -4, -5)},
    **{"shortcut_only_gating_0": 12.86, "shortcut_only_gating_-6": 6.91},
    **{"convolution": 12.22, "dropout": None},
}
TABLE_2 = {
    110: (6.61, 8.17, 7.84, 6.71, 6.37),
    164: (5.93, 6.50, 6.14, 5.91, 5.46),
}
# (data set, depth, block) -> errors of original and pre-activation units.
TABLE_3 = {
    ("cifar10", 110, "single"): (9.90, 8.91),
    ("cifar10", 110, None): (6.61, 6.37),
    ("cifar10", 164, None): (5.93, 5.46),
    ("cifar10", 1001, None): (7.61, 4.92),
    ("cifar100", 164, None): (25.16, 24.33),
    ("cifar100", 1001, None): (27.82, 22.71),
}
# Basic CIFAR nets with zero padding, and pre-activation bottleneck nets; trainable.
COUNTS = {
    **{20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962},
    **{164: 1_703_258, 1001: 10_327_706},
}


def published(row):
    return row.published and (row.published.error_percent, row.published.top5_error_percent)


def trainable(config, classes, stem="cifar"):
    shape = (32, 32, 3) if stem == "cifar" else (224, 224, 3)
    options = {"classes": classes, "input_shape": shape, "print_fn": None}
    return describe(config.depth, **config.architecture(), **options).parameters


def test_table_1_has_every_shortcut_and_gate_bias_with_its_published_error():
    table = TABLES["table1"]
    assert {row.name: row.published.error_percent for row in table.rows} == TABLE_1
    configs = [row.config() for row in table.rows]
    assert {config.depth for config in configs} == {110}
    assert {config.unit for config in configs} == {"original"}
    # The eleven rows of the paper: six biases share one.
    places = {row.published.where for row in table.rows}
    assert places == {f"Table 1, row {number}" for number in range(1, 12)}


def test_table_1_gives_each_shortcut_the_arguments_of_the_paper():
    shortcuts = {row.name: row.config().make_shortcut() for row in TABLES["table1"].rows}
    for name, scales in {
        "constant_scaling_0_1": (0, 1),
        "constant_scaling_0.5_1": (0.5, 1),
        "constant_scaling_0.5_0.5": (0.5, 0.5),
    }.items():
        found = shortcuts[name]
        assert (found.shortcut_scale, found.residual_scale) == scales
    assert shortcuts["exclusive_gating_-6"].initial_bias == -6
    assert shortcuts["shortcut_only_gating_0"].initial_bias == 0
    assert shortcuts["dropout"].rate == 0.5


def test_table_2_has_five_orders_at_two_depths():
    found = {
        (row.config().depth, row.config().unit): row.published.error_percent
        for row in TABLES["table2"].rows
    }
    assert found == {
        (depth, order): error
        for depth, errors in TABLE_2.items()
        for order, error in zip(ORDERS, errors, strict=True)
    }


def test_table_3_has_both_data_sets_one_layer_units_and_the_small_batch():
    found = {}
    for row in TABLES["table3"].rows:
        config = row.config()
        if config.global_batch_size == 64:
            assert (config.depth, published(row)) == (1001, (4.62, None))
            continue
        found[config.dataset, config.depth, config.block, config.unit] = published(row)[0]
    assert found == {
        (*net, unit): error
        for net, errors in TABLE_3.items()
        for unit, error in zip(("original", "full_preactivation"), errors, strict=True)
    }


def test_table_5_has_top_1_and_top_5_errors_and_the_augmentation_of_each_row():
    found = {
        (row.config().depth, row.config().unit, row.config().augmentation): published(row)
        for row in TABLES["table5"].rows
    }
    assert found == {
        (152, "original", "random_scale_crop"): (21.3, 5.5),
        (152, "full_preactivation", "random_scale_crop"): (21.1, 5.5),
        (200, "original", "random_scale_crop"): (21.8, 6.0),
        (200, "full_preactivation", "random_scale_crop"): (20.7, 5.3),
        (200, "full_preactivation", "random_resized_crop"): (20.1, 4.8),
    }
    config = TABLES["table5"].rows[0].config()
    assert (config.global_batch_size, config.learning_rate) == (256, 0.1)
    assert (config.schedule_epochs, config.drop_epochs, config.warmup_steps) == (90, (30, 60), 0)


def test_degradation_sets_plain_beside_residual_nets_of_four_depths():
    rows = {row.name: row for row in TABLES["degradation"].rows}
    assert set(rows) == {f"{kind}{d}" for kind in ("plain", "residual") for d in (20, 32, 44, 56)}
    assert {rows[f"residual{depth}"].published.error_percent for depth in (20, 32, 44, 56)} == {
        *(8.75, 7.51, 7.17, 6.97)
    }
    assert rows["plain20"].published is None
    assert rows["plain56"].config().shortcut == "none"
    assert rows["plain56"].config().warmup_steps == 0


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "degradation"])
def test_every_cifar_row_has_the_recipe_of_the_appendix(name):
    for row in TABLES[name].rows:
        config = row.config().resolved()
        assert (config.optimizer, config.momentum, config.weight_decay) == ("sgd", 0.9, 1e-4)
        assert (config.learning_rate, config.drop_factor) == (0.1, 0.1)
        assert (config.schedule_steps, config.drop_steps) == (64_000, (32_000, 48_000))
        assert config.augmentation == "pad_crop_flip"
        assert config.train_steps is None
        if name != "degradation":
            assert (config.warmup_steps, config.warmup_learning_rate) == (400, 0.01)
        if "batch64" not in row.name:
            assert config.global_batch_size == 128


def closed_form(config, classes):
    """Trainable parameters by a sum over convolutions and BNs, for any order of Figure 4.

    Two parameters for each channel of a BN; no biases but of the logits.
    """
    order, is_full = config.unit, config.unit == "full_preactivation"
    imagenet = config.stem == "imagenet" or config.depth in (152, 200)
    kind = "bottleneck" if config.depth in (164, 1001) or imagenet else config.block or "basic"
    convolutions = {"single": 1, "basic": 2, "bottleneck": 3}[kind]
    units = [(config.depth - 2) // (3 * convolutions)] * 3
    if imagenet:
        units = {152: [3, 8, 36, 3], 200: [3, 24, 36, 3]}[config.depth]
    width = 64 if imagenet else 16
    total = (49 if imagenet else 9) * 3 * width
    # Every other order has a BN right after the first convolution.
    total += 0 if is_full else 2 * width
    channels = width
    for stage, count in enumerate(units):
        filters = width * 2**stage
        outputs = 4 * filters if kind == "bottleneck" else filters
        for unit in range(count):
            inner = {
                "single": [(9, channels, filters)],
                "basic": [(9, channels, filters), (9, filters, filters)],
                "bottleneck": [
                    (1, channels, filters), (9, filters, filters), (1, filters, outputs)
                ],
            }[kind]  # fmt: skip
            total += sum(size * before * after for size, before, after in inner)
            # Before each convolution, or after it: after the addition in place of after the last.
            total += 2 * sum(before if is_full else after for _, before, after in inner)
            if unit == 0 and kind == "bottleneck":
                total += channels * outputs
                total += 2 * outputs * (order not in ("full_preactivation", "bn_after_addition"))
            channels = outputs
    total += 2 * channels if is_full else 0
    return total + channels * classes + classes


@pytest.mark.parametrize("name", TABLES)
def test_every_rows_net_has_the_parameters_of_a_closed_form(name):
    for row in TABLES[name].rows:
        config = row.config()
        if config.shortcut not in ("identity", "constant_scaling", "dropout", "none"):
            continue  # see the next test
        stem = "imagenet" if name == "table5" else "cifar"
        classes = {"cifar100": 100, "imagenet2012": 1000}.get(config.dataset, 10)
        assert trainable(config, classes, stem) == closed_form(config, classes), row.name


def test_the_closed_form_gives_the_published_counts():
    configs = [row.config() for table in TABLES.values() for row in table.rows]
    for depth, count in COUNTS.items():
        found = [c for c in configs if c.depth == depth and c.block is None]
        found = [c for c in found if depth < 164 or c.unit == "full_preactivation"]
        orders = ("original", "full_preactivation")
        assert {closed_form(c, 10) for c in found if c.unit in orders} == {count}


def test_shortcuts_of_table_1_add_the_parameters_of_their_1x1_convolutions():
    # 18 units a stage with 16, 32 and 64 channels.
    widths = [16] * 18 + [32] * 18 + [64] * 18
    gates = sum(width * width + width for width in widths)
    # Where dimensions change the convolution is the projection.
    matching = sum(w * w for w in widths) - 32 * 32 - 64 * 64 + 16 * 32 + 32 * 64
    for row in TABLES["table1"].rows:
        extra = 0
        if "gating" in row.name:
            extra = gates
        if row.name == "convolution":
            extra = matching
        assert trainable(row.config(), 10) == COUNTS[110] + extra, row.name


def test_imagenet_rows_are_the_nets_of_60_and_65_million_parameters():
    for row in TABLES["table5"].rows:
        config = row.config()
        if config.unit == "full_preactivation":
            expected = {152: 60_185_128, 200: 64_666_152}[config.depth]
            assert trainable(config, 1000, "imagenet") == expected


def test_claims_are_the_orders_of_published_figures_within_a_column():
    claims = {(claim.better, claim.worse) for claim in TABLES["table2"].all_claims()}
    # Ten pairs at each of two depths; all ten figures of a depth differ.
    assert len(claims) == 20
    assert ("resnet110_full_preactivation", "resnet110_original") in claims
    assert ("resnet164_relu_only_preactivation", "resnet164_original") in claims
    of_table_1 = {(claim.better, claim.worse) for claim in TABLES["table1"].all_claims()}
    assert ("shortcut_only_gating_-6", "exclusive_gating_-5") in of_table_1
    # Two that fail are not ranked.
    assert not {("dropout", "exclusive_gating_0"), ("exclusive_gating_0", "dropout")} & of_table_1
