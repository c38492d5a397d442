"""Gates and zones: what is counted is what happened."""

import pytest

MIDDLE = {"gate": ((0.5, 0), (0.5, 1))}  # who goes to the left goes in
NOISY = {
    "missed": 0.15, "doubled": 0.1, "confused": 0.15, "weak": 0.2, "false": 0.2, "trembling": 0.02,
}  # fmt: skip
ACROSS = [(-0.1, 0.6), (1.1, 0.6)]


def test_each_way_counts_by_label(field_kit):
    walkers = [
        field_kit.walker(ACROSS, 4),
        field_kit.walker(ACROSS[::-1], 5, "Bicycle", start=60),
        field_kit.walker([(-0.1, 0.9), (1.1, 0.9)], 3, start=150),
    ]
    scene = field_kit.scene(MIDDLE).play(walkers)
    assert scene.counting.as_dict() == {
        "gates": {"gate": {"Bicycle": {"in": 1, "out": 0}, "Person": {"in": 0, "out": 2}}}
    }
    assert [(one.kind, one.facts["label"], one.facts["direction"]) for one in scene.events] == [
        ("crossed", "Person", "out"), ("crossed", "Bicycle", "in"), ("crossed", "Person", "out"),
    ]  # fmt: skip
    first = scene.events[0]
    assert first.text == "Person 1 crossed gate (out)"
    assert first.facts["track"] == 1
    assert first.facts["media_time"] == pytest.approx(2.1, abs=0.3)
    assert not first.of_source


def test_counts_of_many_are_right_though_boxes_are_missed_doubled_and_flicker(field_kit, crowd):
    wrong = total = 0
    for seed in range(3):
        walkers, truth = crowd(seed)
        found = field_kit.scene(MIDDLE).play(walkers, field_kit.detector(seed, **NOISY)).crossings()
        wrong += sum(abs(a - b) for a, b in zip(found, truth, strict=True))
        total += sum(truth)
    assert total > 200
    assert wrong / total < 0.02


@pytest.mark.parametrize("x", [0.02, 0.98])
def test_a_gate_along_the_border_counts(field_kit, crowd, x):
    """Its far side is hardly ever on a frame."""
    walkers, _ = crowd(5, turning=0)
    scene = field_kit.scene({"gate": ((x, 0), (x, 1))})
    ins = sum(walker.points[0][0] > 1 for walker in walkers)
    found = scene.play(walkers, field_kit.detector(5, **NOISY)).crossings()
    assert found == pytest.approx((ins, len(walkers) - ins), abs=2)


@pytest.mark.parametrize(
    ("points", "gate", "expected"),
    [
        ([(0.5, -0.05), (0.5, 1.3)], ((0, 0.03), (1, 0.03)), (1, 0)),  # comes in at the top
        ([(0.5, 1.3), (0.5, -0.05)], ((0, 0.03), (1, 0.03)), (0, 1)),
        ([(0.5, 0.4), (0.5, 1.3)], ((0, 0.97), (1, 0.97)), (1, 0)),
        ([(0.5, 1.3), (0.5, 0.4)], ((0, 0.97), (1, 0.97)), (0, 1)),
    ],
)
def test_a_gate_at_the_top_or_the_bottom(field_kit, points, gate, expected):
    """In is to the right of who walks along the gate: here, downwards."""
    walker = field_kit.walker(points, 4, start=10)
    assert field_kit.scene({"gate": gate}).play([walker]).crossings() == expected


def test_who_stands_on_a_line_or_at_the_border_and_trembles_is_not_counted(field_kit):
    places = [(0.5, 0.5), (0.02, 0.9), (0.985, 0.9)]
    walkers = [field_kit.walker([place, place], 40, start=5) for place in places]
    gates = {"a": MIDDLE["gate"], "b": ((0.03, 0), (0.03, 1)), "c": ((0.97, 0), (0.97, 1))}
    noise = field_kit.detector(1, missed=0.3, trembling=0.03, weak=0.2)
    scene = field_kit.scene(gates).play(walkers, noise)
    assert [scene.crossings(one) for one in range(3)] == [(0, 0)] * 3
    assert not scene.events


def test_what_is_seen_too_briefly_is_not_counted(field_kit):
    detector = field_kit.detector()
    walker = field_kit.walker(ACROSS, 4)
    scene = field_kit.scene(MIDDLE)
    for frame in range(120):  # seen every tenth frame: never confirmed
        scene.frame(detector.sees([walker], frame) if frame % 10 == 0 else ())
    scene.counting.end()
    assert scene.crossings() == (0, 0)
    assert all(found.track is None for result in scene.results for found in result.detections)


def test_past_the_end_of_a_gate_is_not_through_it(field_kit):
    walkers = [field_kit.walker([(-0.1, y), (1.1, y)], 4, start=5) for y in (0.5, 0.95)]
    scene = field_kit.scene({"short": ((0.5, 0.2), (0.5, 0.7))}).play(walkers)
    assert scene.crossings() == (0, 1)


def test_a_zone_tells_who_is_in_it_and_for_how_long(field_kit):
    zone = {"door": ((0.4, 0.2), (0.6, 0.2), (0.6, 0.8), (0.4, 0.8))}
    walker = field_kit.walker([(0.1, 0.5), (0.9, 0.5)], 8, start=5)  # 2 s of it in the zone
    scene = field_kit.scene(zones=zone)
    for frame in range(125):
        scene.frame(field_kit.detector().sees([walker], frame))
    assert scene.counting.as_dict()["zones"]["door"]["Person"]["inside"] == 1
    assert scene.counting.rows() == [("door", "Person 1 inside, 1 entered")]
    assert scene.results[-1].places[0].text == "door: 1 inside"
    for frame in range(125, 250):
        scene.frame(field_kit.detector().sees([walker], frame))
    assert [one.kind for one in scene.events] == ["entered", "left"]
    assert scene.events[1].facts["seconds"] == pytest.approx(2, abs=0.25)
    stays = scene.counting.as_dict()["zones"]["door"]["Person"]
    assert (stays["entered"], stays["left"], stays["inside"]) == (1, 1, 0)
    assert (
        stays["seconds"]["mean"] == stays["seconds"]["longest"] == scene.events[1].facts["seconds"]
    )


def test_who_vanishes_in_a_zone_left_it_when_it_was_last_seen(field_kit):
    zone = {"room": ((0, 0), (1, 0), (1, 1), (0, 1))}
    walker = field_kit.walker([(0.3, 0.5), (0.5, 0.5)], 2)
    scene = field_kit.scene(zones=zone).play([walker], frames=200)
    assert [one.kind for one in scene.events] == ["entered", "left"]
    assert scene.events[1].facts["seconds"] == pytest.approx(2, abs=0.1)


def test_labels_that_are_not_wanted_are_not_counted(field_kit):
    walkers = [field_kit.walker(ACROSS, 4), field_kit.walker([(-0.1, 0.9), (1.1, 0.9)], 4, "Car")]
    scene = field_kit.scene(MIDDLE, wanted=lambda label: label == "Car").play(walkers)
    assert scene.counting.as_dict()["gates"]["gate"] == {"Car": {"in": 0, "out": 1}}
