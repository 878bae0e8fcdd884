from __future__ import annotations

from restore_rwkv.io import PartProgress, begin_stage, part_of
from restore_rwkv.io.progress import SHARE


class Noted:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))

    def stage(self, name: str, unit: str = "") -> None:
        self.calls.append((name, unit))


def test_a_plain_function_is_not_told_of_stages() -> None:
    calls: list[tuple[int, int]] = []
    begin_stage(lambda done, total: calls.append((done, total)), "reading")
    begin_stage(None, "reading")
    assert calls == []


def test_inputs_share_the_whole_equally_and_name_their_stages() -> None:
    noted = Noted()
    for index, slices in enumerate((4, 200)):
        part = part_of(noted, f"{index}.nii", index, 2)
        assert part is not None
        begin_stage(part, "restoring", "slices")
        part(slices // 2, slices)
        part(slices, slices)
    assert noted.calls == [
        *(("0.nii: restoring", SHARE), (500, 2000), (1000, 2000)),
        *(("1.nii: restoring", SHARE), (1500, 2000), (2000, 2000)),
    ]


def test_one_input_is_the_whole() -> None:
    noted = Noted()
    assert part_of(noted, "scan.nii", 0, 1) is noted
    assert part_of(None, "scan.nii", 0, 2) is None


def test_stacks_of_a_set_are_counted_in_slices() -> None:
    noted = Noted()
    PartProgress(noted, 10, 5, 20)(2, 5)
    PartProgress(noted, 15, 5, 20)(0, 0)
    assert noted.calls == [(12, 20), (20, 20)]
