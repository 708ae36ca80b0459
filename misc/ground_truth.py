#!/usr/bin/env python3
"""Which measure can be believed? Scores measures on networks that differ by construction."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.all_pairs import check_types, own_type
from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Score all measures that misc/all_pairs.py has measured of networks that differ by construction: do they tell "
        "groups of networks, differences of outputs, and layers by depth?"
    )
    add = options.add_argument
    add("source_dir", help="folder that misc/all_pairs.py has written to")
    add("networks", help="the list of networks; groups are named such as label_noise:0.5, test and strength")
    add("-o", "--output", type=cli.csv_file, default="scores.csv", help="CSV to write; figures go beside it")
    add("--map", help="draw a map of the networks by this measure as well, such as cka or 'covariance density'")
    add("--map-layer", help="layer of the map; default: the deepest")
    add("--resamples", dest="n_resamples", type=cli.whole_number(10), default=1000, help="of the bootstrap")
    add("--own-types", type=own_type, nargs="+", default=[], metavar="FILE.py:FUNCTION",
        help="types in the list that are a user's code, which runs only if named here")  # fmt: skip
    cli.add_gpu(options)
    cli.add_data(options, batch_size=512)
    cli.add_seed(options, help="seed of the bootstrap")
    options.set_defaults(dataset=None)  # whose test images give Jensen–Shannon divergences; without it none are taken
    return options


def score_measures(args) -> None:
    from src.console import note, result
    from src.errors import UserError
    from src.ground_truth.protocol import score
    from src.ground_truth.report import draw_maps, sentences, write_scores
    from src.ground_truth.tables import read_tables
    from src.results.network_list import read_networks

    networks = read_networks(args.networks)
    check_types(args, networks)
    tables = read_tables(Path(args.source_dir), networks)
    groups = [network.group or "" for network in networks]
    divergences = divergences_of(args, networks) if args.dataset else None
    rows = score(tables, groups, divergences=divergences, n_resamples=args.n_resamples, seed=args.seed)
    if not rows:
        raise UserError(f"{args.source_dir} lacks pairs of every group; let misc/all_pairs.py finish first")
    write_scores(Path(args.output), rows)
    result("\n".join(sentences(rows)))
    note(f"wrote {args.output}")
    if args.map:
        layer = args.map_layer or tables.layers[-1]
        for path in draw_maps(Path(args.output), tables, groups, measure=args.map, layer=layer):
            note(f"wrote {path}")


def divergences_of(args, networks):
    """Return the mean Jensen–Shannon divergences (N, N) of the outputs on test images, by one pass of each network."""
    import numpy as np
    import torch

    from src.datasets import dataset_info
    from src.ground_truth import output_differences
    from src.network_names import NetworkName
    from src.runtime import device_of
    from src.session import Session

    device, session, outputs = device_of(args.gpu), Session(), []
    spec = dataset_info(args.dataset, labelled=True).spec
    images = session.dataset(args.dataset, args.dataset_root, train=False, **cli.load_options(args, device))
    for network in networks:
        net = session.network(NetworkName(network.path, network.type), spec, device=device)
        with torch.no_grad():
            batches = [net(x.to(device)).softmax(1).cpu() for x, _ in images.batches(args.batch_size)]
        outputs.append(torch.cat(batches).numpy())
    return np.array([[output_differences(one, other).jensen_shannon for other in outputs] for one in outputs])


def main(argv=None) -> int:
    return cli.run(parser(), score_measures, argv)


if __name__ == "__main__":
    sys.exit(main())
