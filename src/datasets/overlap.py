"""The share of test inputs that are among the training inputs."""

import torch

from src.datasets.base import InputSet

N_SAMPLED = 1000  # test inputs
MOST_SEARCHED = 200_000  # training inputs: more take minutes to read


def share_among(test_set: InputSet, train_set: InputSet) -> float:
    """Return the share of test inputs, of a sample of 1,000, that equal a training input.

    Interventions do not count. It is 0 where there are too many training inputs to search.
    """
    if len(train_set) > MOST_SEARCHED:
        return 0.0
    n_sampled = min(len(test_set), N_SAMPLED)
    sample = torch.arange(n_sampled) * len(test_set) // n_sampled
    everything = torch.arange(len(train_set))
    rough = set(test_set.rough_digests(sample))
    is_candidate = [digest in rough for digest in train_set.rough_digests(everything)]
    candidates = everything[torch.tensor(is_candidate)]
    among_training = set(train_set.digests(candidates))
    n_shared = sum(digest in among_training for digest in test_set.digests(sample))
    return n_shared / n_sampled
