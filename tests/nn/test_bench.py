"""The benchmark: what it compares computes the same, is measured in turn, and is told as it was found."""

import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from steersman.__main__ import main
from steersman.nn import bench
from steersman.nn.bench import Case, Peer, bench_cores, cases, check_agreement, core_table, measured, one_thread
from steersman.nn.cores import LSTM

ALL = [(case, peer) for case in cases() for peer in case.peers]


def small(case: Case) -> Case:
    """The same on a shape that takes no time."""
    batch, time_, features, hidden = case.shape
    shape = (min(batch, 3), min(time_, 9), min(features, 8), min(hidden, 16))
    return replace(case, shape=shape, spec=replace(case.spec, hidden=shape[3]))


@pytest.fixture
def two_small_rows(monkeypatch):
    """The benchmark cut down to a step and a training of small shapes."""
    step, training = next(c for c in cases() if c.what == "step"), next(c for c in cases() if c.what == "GRU training")
    monkeypatch.setattr(bench, "cases", lambda: [small(step), small(training)])


@pytest.mark.parametrize(("case", "peer"), ALL, ids=[f"{c.what} {c.size} {p.name}" for c, p in ALL])
def test_ours_and_every_peer_compute_the_same(case, peer):
    for module in peer.modules:
        pytest.importorskip(module)
    case = replace(small(case), peers=(peer,))
    torch.manual_seed(1)
    task = case.task()
    check_agreement(case, {side.name: side.build(task) for side in (case.ours, peer)})


def test_a_peer_that_computes_something_else_is_no_peer():
    case = Case("LSTM", (2, 5, 3, 4), LSTM(4), (Peer("another", bench.torch_lstm),))
    task = case.task()
    with pytest.raises(RuntimeError, match="ours and another differ"):
        check_agreement(case, {"ours": bench.training(task), "another": bench.torch_lstm(task)})


def test_ragged_rows_have_other_outputs_than_full_ones():
    task = Case("ragged", (4, 9, 3, 4), LSTM(4), ()).task()
    whole, cut = (run(task)()[0] for run in (bench.training, bench.ragged))
    assert not torch.equal(whole, cut)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_training_gives_the_gradients_of_all_weights(layer_norm):
    task = Case("LSTM", (2, 5, 3, 4), LSTM(4, layer_norm=layer_norm), ()).task()
    assert len(bench.training(task)()) == 2 + len(list(task.core.parameters()))


def test_every_number_that_must_be_reached_has_its_row():
    found: dict[str, list[float | None]] = {}
    for case in cases():
        found.setdefault(f"{case.what} / {' '.join(peer.name for peer in case.peers)}", []).append(case.must)
    assert found == {
        "step / ONNX Runtime numba": [3, 2, 1.4, 1.05],
        "step, bf16 weights / ONNX Runtime numba": [4, 3, 2.2, 2],
        "LSTM training / nn.LSTM": [0.97, 1.05, 1.15, 1.6],
        "GRU training / nn.GRU": [1.7, 6, 30],
        "GRU training / flax, jitted": [1.1, 1.4, 1.7],
        "layer-norm LSTM training / eager torch JAX, jitted": [1.7, 2.8],
        "minGRU training / nn.LSTM": [2, 2],
        "LSTM training, bf16 / nn.LSTM": [1, 1],
        "GRU training, bf16 / nn.GRU": [1.5, 1.5],
        "ragged LSTM training / padded": [1],
    }


def test_the_measured_take_turns():
    order = []
    taken = measured({name: lambda name=name: order.append(name) or () for name in "ab"}, 0.0, 0.0, 4)
    assert "".join(order[-8:]) == "abababab"
    assert {name: len(times) for name, times in taken.items()} == {"a": 4, "b": 4}


def test_cpu_time_is_counted_not_the_time_that_passes():
    def work():
        return (np.random.default_rng(0).normal(size=20_000).sum(),)

    taken = measured({"sleep": lambda: time.sleep(0.02) or (), "work": work}, 0.0, 0.0, 3)
    assert np.median(taken["sleep"]) < 10_000
    assert np.median(taken["work"]) > 50


def test_a_row_is_of_the_fastest_peer(monkeypatch):
    """Ours takes 1, one peer 3 and another 2: twice as fast."""
    given = {"ours": 1.0, "slow": 3.0, "quick": 2.0}
    monkeypatch.setattr(bench, "measured", lambda runs, *a: {name: [given[name]] * 3 for name in runs})
    peers = tuple(Peer(name, bench.training) for name in ("slow", "quick"))
    monkeypatch.setattr(bench, "cases", lambda: [Case("LSTM", (1, 2, 3, 4), LSTM(4), peers, 2.5)])
    rows, missing = bench_cores()
    assert [row.json() for row in rows] == [
        {"what": "LSTM", "shape": "1,2,3,4", "peer": "quick", "ours_us": 1.0, "peer_us": 2.0, "ratio": 2.0, "must": 2.5}
    ]
    assert missing == []
    assert "'red'" in str(list(core_table(rows).columns[5].cells))


def test_one_thread_only_while_measuring():
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
        assert not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) == 1
    assert torch.get_num_threads() == 2
    assert not hasattr(os, "sched_getaffinity") or os.sched_getaffinity(0) == allowed
    torch.set_num_threads(before)


def test_json_is_a_list_of_rows(two_small_rows, capfd):
    main(["bench", "cores", "--json", "--quick", "--only", "training"])
    (row,) = json.loads(capfd.readouterr().out)
    assert row.keys() == {"what", "shape", "peer", "ours_us", "peer_us", "ratio", "must"}
    assert row["ratio"] == pytest.approx(row["peer_us"] / row["ours_us"])
    assert (row["what"], row["peer"], row["must"]) == ("GRU training", "nn.GRU", 1.7)


def test_the_table_names_what_was_left_out_and_how_to_install_it(two_small_rows, monkeypatch, capfd):
    monkeypatch.setattr(bench, "_installed", lambda module: module == "torch")
    main(["bench", "cores", "--quick"])
    out = capfd.readouterr().out
    assert "GRU training" in out
    assert "step" not in out.replace("steersman", "")
    last = out.splitlines()[-1]
    assert all(word in last for word in ("onnx", "onnxruntime", "numba", 'pip install "steersman[bench]"'))


def test_measuring_leaves_the_random_numbers_alone(two_small_rows):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    bench_cores("training", quick=True)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["cores", "--only", "abacus"], "no row has 'abacus' in it; there are step, "),
        (["corse"], "did you mean 'cores'"),
        ([], "needs a name first: steersman bench cores"),
    ],
)
def test_what_is_not_there_is_refused(line, said, capfd):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *line])
    assert stop.value.code == 2
    assert said in " ".join(capfd.readouterr().err.split())
