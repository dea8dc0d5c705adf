"""ADM's evaluator on the files of the working folder; `record.py` runs it, in a process without
torch.

    python run_adm.py TENSORFLOW ROOM-OF-THIS-FILE EVALUATIONS
"""

import json
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path[:0] = sys.argv[1:]
    import adm_graph
    import tensorflow.compat.v1 as tf

    tf.disable_eager_execution()
    adm_graph.write_graph(dict(np.load("layers.npz")), Path(adm_graph.GRAPH))
    import evaluator

    ours = evaluator.Evaluator(tf.Session())
    reference, sample = (ours.read_activations(name) for name in ("b.npz", "a.npz"))
    stats, spatial = ours.read_statistics("b.npz", reference)
    of_sample, of_sample_spatial = ours.read_statistics("a.npz", sample)
    precision, recall = ours.compute_prec_recall(reference[0], sample[0])
    rows = np.load("rows.npz")
    shares = ours.compute_prec_recall(rows["y"], rows["x"])
    told = {
        "Inception Score": ours.compute_inception_score(sample[0]),
        "FID": float(of_sample.frechet_distance(stats)),
        "sFID": float(of_sample_spatial.frechet_distance(spatial)),
        "Precision": precision,
        "Recall": recall,
        "rows": list(shares),
    }
    Path("told.json").write_text(json.dumps(told))
